"""Datasets for runs, and a run."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from rfdetr.training.run import TrainingResult

from ..data.tiny_coco import CAT_AND_DOG, annotation, image, write_coco
from .stops import EVERYTHING
from .tiny import train_tiny


@pytest.fixture(scope="session")
def dots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight pictures for training and three for validation, on which random weights score. Not to be changed."""
    folder = tmp_path_factory.mktemp("dots")
    for number, (split, count) in enumerate({"train": 8, "valid": 3}.items()):
        draw_dots(folder / split, count, np.random.default_rng(number))
    return folder


@pytest.fixture(scope="session")
def straight(dots: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainingResult:
    """A run with everything that has never stopped, until its early end."""
    result, _ = train_tiny(dots, tmp_path_factory.mktemp("straight"), **EVERYTHING)
    return result


@pytest.fixture(scope="session")
def half_empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two pictures under four names each; of the second no object is known."""
    folder = tmp_path_factory.mktemp("half_empty")
    images = [image(number, file_name=f"{1 + number % 2}.png") for number in range(8)]
    boxes = [[5, 5, 20, 20], [10, 20, 30, 10], [2, 3, 50, 30], [30, 10, 20, 25], [0, 0, 9, 9]]
    objects = [
        annotation(number, image_id=2 * (number % 4), bbox=box, category_id=CAT_AND_DOG[number % 2]["id"])
        for number, box in enumerate(boxes)
    ]
    write_coco(folder, "train", images, objects)
    return write_coco(folder, "valid")


def draw_dots(folder: Path, count: int, rng: np.random.Generator) -> None:
    """Five red or blue dots per picture, each about where and how large random weights propose a box."""
    folder.mkdir()
    annotations: list[dict[str, Any]] = []
    for number in range(count):
        pixels = rng.integers(0, 60, (64, 64, 3), dtype=np.uint8)
        for place in rng.permutation(16)[:5]:
            category, (width, height) = int(rng.integers(2)), rng.uniform(3, 5, 2)
            x = place % 4 * 16 + 8 - width / 2 + rng.uniform(-0.6, 0.6)
            y = place // 4 * 16 + 8 - height / 2 + rng.uniform(-0.6, 0.6)
            pixels[int(y) : int(y + height) + 1, int(x) : int(x + width) + 1] = ((0, 80, 255), (255, 80, 0))[category]
            box = {"bbox": [x, y, width, height], "area": width * height, "iscrowd": 0}
            annotations.append({"id": len(annotations), "image_id": number, "category_id": category, **box})
        Image.fromarray(pixels).save(folder / f"{number}.png")
    images = [{"id": number, "file_name": f"{number}.png", "width": 64, "height": 64} for number in range(count)]
    categories = [{"id": 0, "name": "blue"}, {"id": 1, "name": "red"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "_annotations.coco.json").write_text(json.dumps(content))
