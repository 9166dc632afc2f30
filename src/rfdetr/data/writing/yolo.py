"""A split as YOLO has it: pictures in images/, a text file for each in labels/ (Ultralytics' layout)."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float64, Int64

from rfdetr.classes import ClassTable
from rfdetr.config.runs import Split as SplitName
from rfdetr.data.annotations import Annotations
from rfdetr.data.formats.folders import suffix_of
from rfdetr.data.locating import IMAGE_SUFFIXES
from rfdetr.data.one_polygon import one_polygon
from rfdetr.data.writing.coco import Split, note_renamed
from rfdetr.data.writing.names import Names, label_name
from rfdetr.data.writing.pictures import Link, place, suffix, upright_content
from rfdetr.files import write_yaml

FOLDERS: dict[SplitName, str] = {"train": "train", "valid": "val", "test": "test"}
DATA_FILE = "data.yaml"

_CROWD = "{} crowd regions are left out: YOLO has none"
_OUTSIDE = "{} objects are left out: nothing of them lies inside of their picture"
_JOINED = "{} outlines of several parts are one polygon now, with bridges without width: YOLO has one for each object"
_TRACED = "{} outlines of run-length code are polygons along their pixels now"
_OTHER_BOX = "{} objects have the box around their outline now, which is more than a pixel from the one they had"
_TURNED = "{} pictures, whose boxes were drawn without their EXIF orientation, are written without it"
_NOT_TURNED = "{} pictures are left out: their boxes were drawn without their EXIF orientation, which cannot be removed"


def write_data_file(root: Path, splits: list[SplitName], classes: ClassTable) -> None:
    places = {FOLDERS[split]: f"images/{FOLDERS[split]}" for split in splits}
    write_yaml(root / DATA_FILE, {**places, "names": dict(zip(classes.class_ids, classes.names, strict=True))})


def write_split(split: Split, name: SplitName, root: Path, link: Link, problems: list[str]) -> None:
    """Pictures and label files. What YOLO cannot hold is noted.

    Raises:
        OSError, ImageError, DatasetError: as `place`.
    """
    images, labels = root / "images" / FOLDERS[name], root / "labels" / FOLDERS[name]
    for folder in (images, labels):
        folder.mkdir(parents=True, exist_ok=True)
    names, pictures, changes = Names(is_yolo=True), split.pictures, Counter[str]()
    boxes = _Boxes.of(split.annotations, changes)
    for index in range(len(split.annotations)):
        content = upright_content(pictures, index) if pictures.is_as_stored[index] else None
        if pictures.is_as_stored[index]:
            changes[_NOT_TURNED if content is None else _TURNED] += 1
            if content is None:
                continue
        own = pictures.name(index)
        new = names.add(own, "" if suffix_of(Path(own).name) in IMAGE_SUFFIXES else suffix(pictures, index))
        if content is None:
            place(pictures, index, images / new, link)
        else:
            (images / new).parent.mkdir(parents=True, exist_ok=True)
            (images / new).write_bytes(content)
        lines = _lines(split, boxes, index, changes)
        file = labels / label_name(new)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(f"{line}\n" for line in lines), encoding="ascii")
    note_renamed(names, problems)
    problems += [text.format(count) for text, count in changes.items() if count]


@dataclass(frozen=True, eq=False)
class _Boxes:
    """The parts of all boxes inside of their pictures, in fractions of the sides."""

    corners: Float64[np.ndarray, "M 2 2"]
    is_written: Bool[np.ndarray, "M"]
    sides: Int64[np.ndarray, "M 2"]  # width and height of the pictures

    @classmethod
    def of(cls, annotations: Annotations, changes: Counter[str]) -> "_Boxes":
        sides = np.repeat(annotations.sizes_hw[:, ::-1], np.diff(annotations.offsets), axis=0)
        start, size = np.split(annotations.boxes_xywh, 2, axis=1)
        corners = np.stack([start, start + size], axis=1).clip(0, sides[:, None]) / sides[:, None]
        is_inside = (corners[:, 1] > corners[:, 0]).all(axis=1)
        changes[_CROWD] += int(annotations.is_crowd.sum())
        changes[_OUTSIDE] += int((~is_inside & ~annotations.is_crowd).sum())
        return cls(corners, is_inside & ~annotations.is_crowd, sides)


def _lines(split: Split, boxes: _Boxes, index: int, changes: Counter[str]) -> list[str]:
    """`class cx cy w h` or `class x1 y1 x2 y2 ...` of each object of an image."""
    annotations = split.annotations
    start, end = annotations.offsets[index : index + 2].tolist()
    rows = start + np.flatnonzero(boxes.is_written[start:end])
    corners = boxes.corners[rows]
    numbers = np.concatenate([corners.mean(axis=1), corners[:, 1] - corners[:, 0]], axis=1).tolist()
    for number, row in enumerate(rows.tolist()):
        polygon = _polygon(split, row, boxes, changes)
        numbers[number] = numbers[number] if polygon is None else polygon.ravel().tolist()
    labels = annotations.labels[rows].tolist()
    return [
        " ".join([str(label), *(f"{number:.10g}" for number in own)])
        for label, own in zip(labels, numbers, strict=True)
    ]


def _polygon(split: Split, row: int, boxes: _Boxes, changes: Counter[str]) -> Float64[np.ndarray, "_ 2"] | None:
    """The part of an outline inside of its picture, in fractions of the sides; None: there is none, or without area."""
    outlines = split.annotations.segmentations
    if outlines is None or not split.has_outline[row]:
        return None
    outline, sides = outlines[row], boxes.sides[row]
    polygon = one_polygon(outline, (int(sides[1]), int(sides[0]))).clip(0, sides)
    around = np.array([polygon.min(axis=0), polygon.max(axis=0)])
    if (around[1] <= around[0]).any():
        return None
    changes[_OTHER_BOX] += bool(np.abs(around - boxes.corners[row] * sides).max() > 1)
    if not isinstance(outline, list):
        changes[_TRACED] += 1
    elif len(outline) > 1:
        changes[_JOINED] += 1
    polygon /= sides
    return polygon
