"""The rules for what annotation files say of objects: what is used as it is, mended, left out or refused.

Rules for boxes, as for the outlines in `outlines.py`, hold for all formats. A defect of single objects leaves them out
with a warning. Where it shows that the whole file means something else, training on what is left would be worse than
stopping: that is an error.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float64, Int64

from rfdetr.data.annotations import boxes_inside
from rfdetr.data.problems import Problems
from rfdetr.data.raw import RawSplit

Place = Callable[[int], str]
"""Of an object's row: where it is, for messages."""

TOLERANCE = 1.0
"""Pixels by which a box may reach beyond its image unmentioned: rounding, and counting pixels from 1."""
_FARTHEST = 1e9
"""Pixels; no picture has so many in a row, and 32 bits hold the number."""
_MOST = 0.5
"""Part of the objects that has to look as if it meant something else."""
_FEW, _FEWEST = 0.1, 4
"""Part and number of the objects from which on it is worth a warning."""


def boxes_in_pixels(raw: RawSplit, sizes_hw: Int64[np.ndarray, "M 2"]) -> Float64[np.ndarray, "M 4"]:
    """Left, top, width and height of all objects; `sizes_hw` are those of their images."""
    boxes: np.ndarray = np.array(raw.boxes, np.float64).reshape(-1, 4)
    return boxes if raw.unit == "pixels" else boxes * np.tile(sizes_hw[:, ::-1], 2)


def usable_boxes(
    boxes: Float64[np.ndarray, "M 4"],
    areas: Float64[np.ndarray, "M"],
    sizes_hw: Int64[np.ndarray, "M 2"],
    is_known: Bool[np.ndarray, "M"],
    place: Place,
    raw: RawSplit,
    problems: Problems,
) -> Bool[np.ndarray, "M"]:
    """Which boxes can be used. `is_known`: their image and class are; of the others nothing is said."""
    file, is_crowd = raw.files.file, np.array(raw.is_crowd, np.bool_)
    is_finite = np.asarray(np.isfinite(boxes).all(axis=1))
    is_near = (np.abs(boxes) < _FARTHEST).all(axis=1)
    boxes = np.where(is_near[:, None], boxes, 0)
    limits = sizes_hw[:, ::-1]
    start, size = boxes[:, :2], boxes[:, 2:]
    end = start + size
    usable = np.array(is_known)

    def leave_out(is_bad: Bool[np.ndarray, "M"], kind: str) -> None:
        for row in np.flatnonzero(is_bad & usable).tolist():
            problems.warning(file, f"{kind} (left out)", f"{place(row)} has {_shown(raw, row)}")
        usable[is_bad] = False

    if raw.unit == "pixels":
        _suspect_file(boxes, areas, limits, is_known & is_near & ~is_crowd, raw, problems)
    leave_out(~is_finite, "boxes whose numbers are not finite")
    leave_out(~is_near, "boxes that reach farther than any picture")
    leave_out(np.asarray((size < 0).any(axis=1)), "boxes of negative width or height")
    leave_out((size == 0).any(axis=1), "boxes without width or height")
    leave_out((end <= 0).any(axis=1) | (start >= limits).any(axis=1), "boxes that lie outside of their image")
    if raw.unit == "pixels":
        is_speck = (size < 1).all(axis=1) & (end <= 1.5).all(axis=1) & (limits > 4).all(axis=1)
        leave_out(is_speck, "boxes smaller than a pixel, in fractions of the image instead of pixels?")
    leave_out(~boxes_inside(boxes, sizes_hw)[1], "boxes too narrow for numbers of 32 bits")
    beyond = np.maximum(-start, end - limits).max(axis=1)
    reaches_out = (beyond > np.maximum(TOLERANCE, 0.01 * limits.max(axis=1))) & ~is_crowd
    for row in np.flatnonzero(reaches_out & usable).tolist():
        kind = "boxes that reach beyond their image (the part inside counts)"
        problems.warning(file, kind, f"{place(row)} has {_shown(raw, row)}")
    return usable


def _shown(raw: RawSplit, row: int) -> str:
    x, y, width, height = raw.boxes[4 * row : 4 * row + 4]
    if raw.unit == "fractions":
        x, y = x + width / 2, y + height / 2
    return "[" + ", ".join(f"{number:.6g}" for number in (x, y, width, height)) + "]"


_COCO_FORM = "COCO's boxes are [x, y, width, height] in pixels"


def _suspect_file(
    boxes: Float64[np.ndarray, "M 4"],
    areas: Float64[np.ndarray, "M"],
    limits: Int64[np.ndarray, "M 2"],
    rows: Bool[np.ndarray, "M"],
    raw: RawSplit,
    problems: Problems,
) -> None:
    """Boxes of another form look wrong together, one by one they may look right."""
    boxes, areas, limits = boxes[rows], areas[rows], limits[rows]
    if not len(boxes):
        return
    start, size = boxes[:, :2], boxes[:, 2:]
    of_coco = raw.files.format in ("coco", "webdataset")
    file, form = raw.files.file, _COCO_FORM if of_coco else "Boxes are [x1, y1, x2, y2] in pixels"
    is_fraction = np.asarray(((size <= 1) & (start <= 1) & (start >= 0)).all(axis=1) & (limits > 4).all(axis=1))
    if is_fraction.mean() > _MOST:
        problems.error(file, f"{_percent(is_fraction)} of the boxes look like fractions of the image. {form}")
    if not of_coco:
        return
    reaches_out: np.ndarray = (start + size > limits + TOLERANCE).any(axis=1)
    could_be_corners = ((size > start) & (size <= limits + TOLERANCE)).all(axis=1)
    of_corners, of_sides = (size - start).prod(axis=1), size.prod(axis=1)
    has_area_of_corners = np.isclose(areas, of_corners, rtol=0.01) & ~np.isclose(areas, of_sides, rtol=0.01)
    looks_like_corners = could_be_corners & (reaches_out | has_area_of_corners)
    if could_be_corners.mean() > 0.95 and looks_like_corners.mean() > _MOST:
        percent = _percent(looks_like_corners)
        problems.error(file, f"{percent} of the boxes look like corners [x1, y1, x2, y2]. {form}")
        return
    could_be_centred = ((start >= size / 2 - TOLERANCE) & (start + size / 2 <= limits + TOLERANCE)).all(axis=1)
    if could_be_centred.mean() > 0.95 and (reaches_out & could_be_centred).mean() > _FEW and len(boxes) >= _FEWEST:
        add = problems.error if reaches_out.mean() > _MOST else problems.warning
        text = "of the boxes leave the image, and none would if [x, y, width, height] had x and y of the centre"
        add(file, f"{_percent(reaches_out)} {text}. {form}, from its left top corner")


def _percent(values: Bool[np.ndarray, "M"]) -> str:
    return f"{values.mean():.0%}"


def check_share(noun: str, total: int, left: int, raw: RawSplit, problems: Problems) -> None:
    """Refuse a split of which most had to be left out: it is not what it seems."""
    if total and left < (1 - _MOST) * total:
        problems.error(raw.files.file, f"{total - left} of {total} {noun} cannot be used: see the warnings for why")
