"""What a COCO annotation file must hold, and the one report of all that is wrong with it."""

import reprlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import sub
from pathlib import Path
from typing import Any

from rfdetr.config.base import report
from rfdetr.errors import DatasetError
from rfdetr.masks import run_lengths

Row = dict[str, Any]

_EXAMPLES = 3  # per kind of problem
_LONGEST = 60  # characters of a value shown in a message
_LARGEST = 1e300  # sums of numbers below it are finite too


class Problems:
    """Collects what is wrong with an annotation file: each kind of problem once, with its count and a few examples."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.lines: list[str] = []

    def add(self, kind: str, examples: Sequence[str]) -> None:
        """Nothing happens without examples."""
        if examples:
            more = ", ..." if len(examples) > _EXAMPLES else ""
            self.lines.append(f"{kind} ({len(examples)}): {', '.join(examples[:_EXAMPLES])}{more}")

    def raise_if_any(self) -> None:
        if self.lines:
            raise DatasetError(report(str(self.file), self.lines))


@dataclass(frozen=True)
class Field:
    """A key of the entries of a table. An optional one may be absent or null."""

    name: str
    is_valid: Callable[[Any], bool]
    meaning: str
    required: bool = True

    def accepts(self, row: Row) -> bool:
        value = row.get(self.name)
        return self.is_valid(value) if value is not None else not self.required


def is_whole(value: Any) -> bool:
    return type(value) is int and -(2**63) <= value < 2**63


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < _LARGEST


def _is_side(value: Any) -> bool:
    return type(value) in (int, float) and 0 < value < 2**31 and value == int(value)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _is_area(value: Any) -> bool:
    return _is_number(value) and value >= 0


def _is_box(value: Any) -> bool:
    return type(value) is list and len(value) == 4 and all(map(_is_number, value)) and min(value[2:]) >= 0


FIELDS = {
    "images": (
        Field("id", is_whole, "a whole number"),
        Field("file_name", _is_text, "a file name"),
        Field("width", _is_side, "a positive whole number"),
        Field("height", _is_side, "a positive whole number"),
    ),
    "annotations": (
        Field("id", is_whole, "a whole number"),
        Field("image_id", is_whole, "a whole number"),
        Field("category_id", is_whole, "a whole number"),
        Field("bbox", _is_box, "[x, y, width, height] in finite numbers, width and height not negative"),
        Field("area", _is_area, "a finite number, not negative", required=False),
        Field("iscrowd", lambda value: value in (0, 1), "0 or 1", required=False),
    ),
    "categories": (
        Field("id", is_whole, "a whole number"),
        Field("name", _is_text, "a name"),
    ),
}


def well_formed(table: str, rows: list[Any], problems: Problems) -> list[Row]:
    """The entries of a table whose fields are all valid."""
    bad: set[int] = set()
    not_objects = [index for index, row in enumerate(rows) if not isinstance(row, dict)]
    problems.add(f"entries of {table} that are not objects", [f"entry {index + 1}" for index in not_objects])
    bad.update(not_objects)
    for field in FIELDS[table]:
        wrong = [index for index, row in enumerate(rows) if isinstance(row, dict) and not field.accepts(row)]
        problems.add(
            f"{table} whose {field.name!r} is not {field.meaning}",
            [f"{_label(table, rows[index], index)} has {_shown(rows[index], field.name)}" for index in wrong],
        )
        bad.update(wrong)
    return [row for index, row in enumerate(rows) if index not in bad] if bad else rows


def _label(table: str, row: Row, index: int) -> str:
    return f"id {row['id']}" if is_whole(row.get("id")) else f"entry {index + 1} of {table}"


def _shown(row: Row, name: str) -> str:
    return _brief(row[name]) if name in row else "none"


def _brief(value: Any) -> str:
    text = reprlib.repr(value)  # repr() of hostile values is endless, or too deep
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "..."


def check_segmentations(annotations: list[Row], sizes_hw: Mapping[int, tuple[int, int]], problems: Problems) -> None:
    """See that every object has a mask, and that crowd regions have a valid one or none.

    `sizes_hw` holds the images by their ids; annotations of other images are passed over.
    """
    found: dict[str, list[str]] = {}
    for row in annotations:
        size_hw = sizes_hw.get(row["image_id"])
        problem = _segmentation_problem(row, size_hw) if size_hw else None
        if problem:
            kind, given = problem
            found.setdefault(kind, []).append(f"id {row['id']}{given and f' has {given}'}")
    for kind, examples in found.items():
        problems.add(kind, examples)


_Problem = tuple[str, str] | None  # its kind, and what the annotation has instead


def _segmentation_problem(row: Row, size_hw: tuple[int, int]) -> _Problem:
    value = row.get("segmentation")
    if not value:
        missing = (
            "annotations without a 'segmentation' (a segmentation model needs a mask for each object: add them, or use "
            "a detection size)"
        )
        return None if row.get("iscrowd") else (missing, "")
    if isinstance(value, list) and all(isinstance(polygon, list) for polygon in value):
        problem = next(filter(None, (_polygon_problem(polygon, size_hw) for polygon in value)), None)
        return problem or _place_problem(value, row["bbox"])
    if isinstance(value, dict) and isinstance(value.get("counts"), str | list):
        return _code_problem(value, size_hw, row["bbox"])
    return (
        "annotations whose 'segmentation' is neither a list of polygons [[x, y, x, y, ...], ...] nor run-length code "
        "{'size': [height, width], 'counts': ...}",
        _brief(value),
    )


def _polygon_problem(polygon: list[Any], size_hw: tuple[int, int]) -> _Problem:
    if not all(map(_is_number, polygon)):
        wrong = next(value for value in polygon if not _is_number(value))
        return "polygons whose coordinates are not finite numbers", _brief(wrong)
    if len(polygon) % 2:
        return "polygons with an odd number of coordinates", str(len(polygon))
    if len(polygon) < 6:
        return "polygons with fewer than three points", _brief(polygon)
    # Drawing takes time and memory in proportion to the length, which only a senseless polygon has more of.
    length = sum(map(abs, map(sub, polygon[2:], polygon)))
    if length > 2 * (size_hw[0] + 1) * (size_hw[1] + 1):
        return "polygons longer than all pixel edges of their image together", f"a length of {length:.4g} pixels"
    return None


def _place_problem(polygons: list[list[Any]], box: list[Any]) -> _Problem:
    """Polygons in parts of the image instead of pixels, for one, would make an empty mask of every object."""
    xs, ys = ([number for polygon in polygons for number in polygon[axis::2]] for axis in (0, 1))
    left, top, right, bottom = min(xs), min(ys), max(xs), max(ys)
    x, y, width, height = box
    is_point = max(right - left, bottom - top) < 1 <= min(width, height) - 1
    is_beside = min(right, x + width) < max(left, x) or min(bottom, y + height) < max(top, y)
    if is_point or (is_beside and min(width, height) > 0):
        kind = "polygons that are a point or lie beside the box of their object (are both in pixels?)"
        return kind, f"x {left:.4g} to {right:.4g}, y {top:.4g} to {bottom:.4g}, box {_brief(box)}"
    return None


def _code_problem(value: Row, size_hw: tuple[int, int], box: list[Any]) -> _Problem:
    size, counts = value.get("size"), value["counts"]
    if size != list(size_hw):
        kind = "run-length code whose 'size' is not the [height, width] of its image"
        return kind, f"{_brief(size)}, its image {list(size_hw)}"
    try:
        runs = _runs(counts)
    except ValueError:
        return "run-length code whose 'counts' are not run lengths", _brief(counts)
    if sum(runs) != size_hw[0] * size_hw[1]:
        kind = "run-length code that does not fill its image exactly"
        return kind, f"{sum(runs)} of {size_hw[0] * size_hw[1]} pixels"
    if not sum(runs[1::2]) and min(box[2:]) > 0:
        return "run-length code without a pixel of its object", ""
    return None


def _runs(counts: str | list[Any]) -> list[int]:
    if isinstance(counts, str):
        return list(run_lengths(counts.encode("ascii")).tolist())
    if not all(type(run) is int and run >= 0 for run in counts) or sum(counts) >= 2**32:
        raise ValueError("not run lengths")
    return counts
