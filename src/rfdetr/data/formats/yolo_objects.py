"""Lines of YOLO's label files -> objects: which of them can be used, judged all at once."""

from array import array
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64

from rfdetr.data.cleaning import check_share
from rfdetr.data.formats.yolo_labels import Lines, shown
from rfdetr.data.raw import Outlines, RawSplit, column

TOLERANCE = 0.01
"""Numbers may leave [0, 1] by so much: tools round, and people draw to the very edge."""

_FEW_LINES = 3  # too few to tell what all lines are like


def add_objects(raw: RawSplit, lines: Lines) -> None:
    """Fill the split with the objects of its lines; note those that cannot be used."""
    values = column(lines.values, np.float64, 5)
    total = len(values) + lines.left_out
    usable = _usable(values, lines, len(raw.categories))
    check_share("lines", total, total - lines.left_out, raw, lines.problems)
    points = column(lines.points, np.int64)
    _suspect_form(values[usable & (points == 0), 1:], lines)
    raw.images = _as_array(column(lines.images, np.int64)[usable])
    raw.labels = _as_array(values[usable, 0].astype(np.int64))
    centre, size = values[usable, 1:3], values[usable, 3:]
    raw.boxes = _as_array(np.concatenate([centre - size / 2, size], axis=1))
    raw.object_ids = _as_array(column(lines.numbers, np.int64)[usable])
    raw.has_outline = array("b", (points[usable] > 0).tobytes())
    raw.areas = array("d", [float("nan")]) * int(usable.sum())
    raw.is_crowd = array("b", [0]) * int(usable.sum())
    if lines.coordinates is not None:
        raw.outlines = _outlines(points, usable, lines.coordinates)


def _as_array(numbers: np.ndarray) -> "array[Any]":
    return array("q" if numbers.dtype == np.int64 else "d", numbers.tobytes())


def _outlines(points: np.ndarray, usable: np.ndarray, coordinates: "array[float]") -> Outlines:
    outlines = Outlines()
    kept = points[usable]
    outlines.polygons = _as_array((kept > 0).astype(np.int64))
    outlines.points = _as_array(kept[kept > 0])
    outlines.coordinates = (
        coordinates if usable.all() else _as_array(np.frombuffer(coordinates)[np.repeat(usable, 2 * points)])
    )
    outlines.code_lengths = array("q", [0]) * len(kept)
    outlines.code_sizes = array("q", [0]) * (2 * len(kept))
    return outlines


def _usable(values: Float64[np.ndarray, "N 5"], lines: Lines, num_classes: int) -> Bool[np.ndarray, "N"]:
    """Which lines are objects. The others are noted, each once."""
    index, centre, size = values[:, 0], values[:, 1:3], values[:, 3:]
    with np.errstate(invalid="ignore"):
        is_finite = np.isfinite(values).all(axis=1)
        is_whole = is_finite & (index == np.floor(index))
        is_named = is_whole & (index >= 0) & (index < num_classes)
        is_within = ((centre >= -TOLERANCE) & (centre <= 1 + TOLERANCE) & (size <= 1 + TOLERANCE)).all(axis=1)
    notes = _Notes(lines, values)
    notes.leave_out(~is_finite, "numbers that are not finite")
    notes.leave_out(is_finite & ~is_whole, "a class index that is not a whole number")
    notes.foreign(is_whole & ~is_named, index[is_whole], num_classes)
    notes.outside(is_named & ~is_within, int(is_named.sum()))
    return np.asarray(is_named & is_within)


@dataclass(frozen=True)
class _Notes:
    lines: Lines
    values: Float64[np.ndarray, "N 5"]

    def example(self, row: int) -> str:
        return f"{self.lines.place(row)} has {shown(self.values[row].tolist())}"

    def leave_out(self, rows: np.ndarray, kind: str) -> None:
        for row in np.flatnonzero(rows).tolist():
            self.lines.leave_out(self.file(row), self.lines.numbers[row], kind, shown(self.values[row].tolist()))

    def file(self, row: int) -> str:
        return self.lines.label_files[self.lines.images[row]]

    def foreign(self, rows: np.ndarray, indices: np.ndarray, num_classes: int) -> None:
        """All labels may be meant otherwise, so that it does not do to leave out these."""
        name = self.lines.files.parts.data_file.name
        names = "1 name, index 0" if num_classes == 1 else f"{num_classes} names, indices 0 to {num_classes - 1}"
        kind = f"class indices without a name ({name} has {names})"
        if indices.size and indices.max() == num_classes and indices.min() > 0:
            kind += f". They go from {indices.min():g} to {num_classes}, but counting starts at 0: subtract 1 from each"
        for row in np.flatnonzero(rows).tolist():
            self.lines.problems.error(self.file(row), kind, self.example(row), group=self.lines.files.file)

    def outside(self, rows: np.ndarray, total: int) -> None:
        number = int(rows.sum())
        if number <= max(total / 2, _FEW_LINES):
            self.leave_out(rows, "boxes outside of the image (numbers are fractions of its sides, 0 to 1)")
            return
        examples = ", ".join(map(self.example, np.flatnonzero(rows)[:3].tolist()))
        text = (
            f"{number} of {total} lines are in pixels, it seems. YOLO's numbers are fractions of the image's sides, "
            f"0 to 1: {examples}"
        )
        self.lines.problems.error(self.lines.files.file, text)


def _suspect_form(boxes: Float64[np.ndarray, "N 4"], lines: Lines) -> None:
    """Lines that begin with the left top corner: as cxcywh some boxes leave the image, as that none would."""
    first, last = boxes[:, :2], boxes[:, 2:]
    number = int((np.abs(first - 0.5) + last / 2 > 0.5 + TOLERANCE).any(axis=1).sum())
    if len(boxes) <= _FEW_LINES or number <= len(boxes) / 10:
        return
    if (last > first).all():
        form = "class left top right bottom"
    elif (first + last <= 1 + TOLERANCE).all():
        form = "class left top width height"
    else:
        return
    text = (
        f"{number} of {len(boxes)} boxes leave the image, and none would if the lines were `{form}`. "
        "YOLO's are `class cx cy w h`"
    )
    add = lines.problems.error if number > len(boxes) / 2 else lines.problems.warning
    add(lines.files.file, text)
