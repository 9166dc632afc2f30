"""A split as a COCO annotation file beside its pictures."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from jaxtyping import Bool

from rfdetr.classes import ClassTable
from rfdetr.data.annotations import Annotations
from rfdetr.data.formats.coco_layout import ROBOFLOW
from rfdetr.data.writing.names import Names
from rfdetr.data.writing.pictures import Link, StoredPictures, place

Row = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Split:
    """What is written of a split."""

    annotations: Annotations
    pictures: StoredPictures
    has_outline: Bool[np.ndarray, "M"]
    """Of each object, whether its outline is its own; it is written if `annotations` have outlines at all."""


def write_split(split: Split, folder: Path, link: Link, problems: list[str]) -> None:
    """Pictures and annotations, in the layout of Roboflow. What there is to say of the result is noted.

    Raises:
        OSError, ImageError, DatasetError: as `place`.
    """
    names, placed = Names(), []
    for index in range(len(split.annotations)):
        placed.append(names.add(split.pictures.name(index)))
        place(split.pictures, index, folder / placed[-1], link)
    folder.mkdir(parents=True, exist_ok=True)
    write_annotations(split, placed, folder / ROBOFLOW)
    note_renamed(names, problems)


def note_renamed(names: Names, problems: list[str]) -> None:
    if names.renamed:
        problems.append(f"{names.renamed} pictures got another name, which the format can hold and no other one has")


def write_annotations(split: Split, names: Iterable[str], file: Path) -> None:
    """The file alone, entry by entry; `names` are those of the pictures."""
    rows = range(len(split.annotations))
    with file.open("x", encoding="ascii") as text:
        text.write('{"categories": [')
        _write_rows(text, categories(split.annotations.classes))
        text.write('], "images": [')
        _write_rows(text, (image(split, index, name) for index, name in zip(rows, names, strict=True)))
        text.write('], "annotations": [')
        _write_rows(text, (row for index in rows for row in objects(split, index)))
        text.write("]}\n")


def _write_rows(text: TextIO, rows: Iterable[Row]) -> None:
    separator = "\n"
    for row in rows:
        text.write(separator + json.dumps(row, allow_nan=False))
        separator = ",\n"


def categories(classes: ClassTable) -> list[Row]:
    rows = zip(classes.category_ids, classes.names, strict=True)
    return [{"id": category_id, "name": name, "supercategory": "none"} for category_id, name in rows]


def image(split: Split, index: int, name: str) -> Row:
    height, width = split.annotations.size_hw(index)
    return {"id": int(split.annotations.image_ids[index]), "file_name": name, "width": width, "height": height}


def objects(split: Split, index: int) -> Iterator[Row]:
    """The annotations of an image. Their ids are their rows in the split, counted from 1."""
    annotations, classes = split.annotations, split.annotations.classes
    category_id_of = dict(zip(classes.class_ids, classes.category_ids, strict=True))
    start, end = annotations.offsets[index : index + 2].tolist()
    boxes, areas = annotations.boxes_xywh[start:end].tolist(), annotations.areas[start:end].tolist()
    labels, crowds = annotations.labels[start:end].tolist(), annotations.is_crowd[start:end].tolist()
    for row, box, area, label, is_crowd in zip(range(start, end), boxes, areas, labels, crowds, strict=True):
        yield {
            "id": row + 1,
            "image_id": int(annotations.image_ids[index]),
            "category_id": category_id_of[label],
            "bbox": box,
            "area": area,
            "iscrowd": int(is_crowd),
            **_outline(split, row),
        }


def _outline(split: Split, row: int) -> Row:
    if split.annotations.segmentations is None or not split.has_outline[row]:
        return {}
    outline = split.annotations.segmentations[row]
    if isinstance(outline, list):
        return {"segmentation": [polygon.ravel().tolist() for polygon in outline]}
    return {"segmentation": {"size": outline["size"], "counts": outline["counts"].decode("ascii")}}
