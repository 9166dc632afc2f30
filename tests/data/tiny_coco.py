"""Writes datasets small enough to read in a test."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

Row = dict[str, Any]


def image(number: int, **changes: Any) -> Row:
    return {"id": number, "file_name": f"{number}.png", "width": 60, "height": 40, **changes}


def annotation(number: int, **changes: Any) -> Row:
    return {
        "id": number,
        "image_id": 1,
        "category_id": 3,
        "bbox": [10, 20, 30, 10],
        "area": 300,
        "iscrowd": 0,
        **changes,
    }


def category(number: int, name: str, **changes: Any) -> Row:
    return {"id": number, "name": name, "supercategory": "none", **changes}


CAT_AND_DOG = (category(3, "cat"), category(7, "dog"))


def write_coco(
    root: Path,
    split: str = "train",
    images: list[Any] | None = None,
    annotations: list[Any] | None = None,
    categories: list[Any] | None = None,
) -> Path:
    """A split with two random pictures, one object and the classes cat (id 3) and dog (id 7), unless told otherwise."""
    folder = root / split
    folder.mkdir(parents=True)
    for number in (1, 2):
        pixels = np.random.default_rng(number).integers(0, 256, (40, 60, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    content = {
        "images": [image(1), image(2)] if images is None else images,
        "annotations": [annotation(1)] if annotations is None else annotations,
        "categories": list(CAT_AND_DOG) if categories is None else categories,
    }
    (folder / "_annotations.coco.json").write_text(json.dumps(content), encoding="utf-8")
    return root
