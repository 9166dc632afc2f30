"""The rules for outlines of objects. For one that cannot be used, or that is missing, the object's box stands in."""

from typing import cast

import numpy as np
from jaxtyping import Bool, Float64, Int64

from rfdetr import masks as mask_ops
from rfdetr.data.cleaning import Place
from rfdetr.data.problems import Problems
from rfdetr.data.raw import RawSplit
from rfdetr.data.segmentations import Segmentations, boxes_of_outlines, lengths_of_polygons, packed

MISSING = "objects without an outline (the box serves as mask)"

_CODES_AT_ONCE = 10_000


def usable_outlines(
    raw: RawSplit,
    boxes: Float64[np.ndarray, "M 4"],
    sizes_hw: Int64[np.ndarray, "M 2"],
    is_used: Bool[np.ndarray, "M"],
    place: Place,
    problems: Problems,
) -> Segmentations | None:
    """An outline for every object that is used; `sizes_hw` are those of the objects' images. None: not asked for."""
    if raw.outlines is None:
        return None
    file = raw.files.file
    outlines = packed(raw.outlines, sizes_hw)
    if raw.unit == "fractions":
        lengths = np.diff(outlines.polygon_offsets)
        points_of = np.diff(outlines.point_offsets)
        scale = np.repeat(np.repeat(sizes_hw[:, ::-1], lengths, axis=0), points_of, axis=0)
        np.multiply(outlines.points, scale, out=outlines.points)
    is_crowd = np.array(raw.is_crowd, np.bool_)
    has_polygons = np.diff(outlines.polygon_offsets) > 0
    has_code = np.diff(outlines.code_offsets) > 0
    is_good = has_polygons | has_code

    def refuse(is_bad: Bool[np.ndarray, "M"], kind: str) -> None:
        for row in np.flatnonzero(is_bad & is_good & is_used).tolist():
            problems.warning(file, f"{kind} (the box serves as mask)", place(row))
        is_good[is_bad] = False

    code_sizes = np.array(raw.outlines.code_sizes, np.int64).reshape(-1, 2)
    refuse(
        has_code & (code_sizes != sizes_hw).any(axis=1),
        "run-length code whose 'size' is not the [height, width] of its image",
    )
    refuse(_is_endless(outlines, sizes_hw), "polygons longer than all pixel edges of their image together")
    around = _boxes_of(outlines, has_polygons, has_code & is_good & is_used)
    is_point, is_beside = _is_elsewhere(around, boxes)
    kind = "that are a point or lie beside the box of their object (are both in pixels?)"
    refuse(has_polygons & (is_point | is_beside), f"polygons {kind}")
    refuse(has_code & is_beside, "run-length code whose pixels lie beside the box of its object")
    refuse(_is_without_pixels(outlines, boxes, has_polygons & is_good & is_used), "polygons that cover no pixel")
    for row in np.flatnonzero(_is_other(around, boxes, sizes_hw) & is_good & is_used & ~is_crowd).tolist():
        problems.warning(file, "objects whose box and outline differ by more than half (both are used)", place(row))
    is_missing = ~is_good & is_used & ~is_crowd
    if is_used.any() and not (is_good & is_used).any():
        problems.error(
            file, "no object has an outline that can be used. A segmentation model needs masks; use a detection size"
        )
    for row in np.flatnonzero(is_missing & ~has_polygons & ~has_code).tolist():
        problems.warning(file, MISSING, place(row))
    rows = np.flatnonzero(~is_good & is_used & (~is_crowd | has_polygons | has_code))
    return outlines.with_rectangles(rows, boxes[rows]) if len(rows) else outlines


def _is_endless(outlines: Segmentations, sizes_hw: Int64[np.ndarray, "M 2"]) -> Bool[np.ndarray, "M"]:
    """Drawing takes time and memory in proportion to the length, which only a senseless polygon has more of."""
    found = np.zeros(len(outlines), np.bool_)
    owner = np.repeat(np.arange(len(outlines)), np.diff(outlines.polygon_offsets))
    found[owner[lengths_of_polygons(outlines) > 2 * (sizes_hw[owner] + 1).prod(axis=1)]] = True
    return found


def _boxes_of(
    outlines: Segmentations, has_polygons: Bool[np.ndarray, "M"], has_code: Bool[np.ndarray, "M"]
) -> Float64[np.ndarray, "M 4"]:
    """Left, top, right and bottom of the objects' outlines; NaN where there is none."""
    around = np.full((len(outlines), 4), np.nan)
    around[has_polygons] = boxes_of_outlines(outlines, has_polygons)
    rows = np.flatnonzero(has_code)
    for start in range(0, len(rows), _CODES_AT_ONCE):
        part = rows[start : start + _CODES_AT_ONCE]
        around[part] = mask_ops.boxes([cast("mask_ops.Rle", outlines[row]) for row in part.tolist()])
    return around


def _is_elsewhere(
    around: Float64[np.ndarray, "M 4"], boxes: Float64[np.ndarray, "M 4"]
) -> tuple[Bool[np.ndarray, "M"], Bool[np.ndarray, "M"]]:
    """Whether an outline is a point, and whether it lies beside the box.

    Polygons in fractions of the image instead of pixels, for one, would make an empty mask of every object.
    """
    start, end = boxes[:, :2], boxes[:, :2] + boxes[:, 2:]
    is_point = ((around[:, 2:] - around[:, :2]) < 1).all(axis=1) & _is_large(boxes)
    is_beside = ((around[:, 2:] < start) | (around[:, :2] > end)).any(axis=1) & (boxes[:, 2:] > 0).all(axis=1)
    return is_point, is_beside


def _is_large(boxes: Float64[np.ndarray, "M 4"]) -> Bool[np.ndarray, "M"]:
    return np.asarray((boxes[:, 2:] >= 2).all(axis=1))


def _is_other(
    around: Float64[np.ndarray, "M 4"], boxes: Float64[np.ndarray, "M 4"], sizes_hw: Int64[np.ndarray, "M 2"]
) -> Bool[np.ndarray, "M"]:
    """Whether box and outline overlap in less than half of what they cover together inside of the image."""
    limits = np.tile(sizes_hw[:, ::-1], 2)
    box = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1).clip(0, limits)
    around = around.clip(0, limits)
    common = (np.minimum(box[:, 2:], around[:, 2:]) - np.maximum(box[:, :2], around[:, :2])).clip(0).prod(axis=1)
    both = (box[:, 2:] - box[:, :2]).prod(axis=1) + (around[:, 2:] - around[:, :2]).prod(axis=1) - common
    return np.asarray((common < 0.5 * both) & _is_large(boxes))


def _is_without_pixels(
    outlines: Segmentations, boxes: Float64[np.ndarray, "M 4"], rows: Bool[np.ndarray, "M"]
) -> Bool[np.ndarray, "M"]:
    """Of some rows, whether polygons of large objects draw nothing, as lines do. Only those without area are drawn."""
    x, y = outlines.points.T
    # The sum of the triangles between (0, 0) and each side; from the last point back to the first of its polygon.
    following = np.arange(1, len(x) + 1)
    starts, ends = outlines.point_offsets[:-1], outlines.point_offsets[1:]
    following[ends - 1] = starts
    with np.errstate(over="ignore", invalid="ignore"):  # of polygons that are refused for their length
        doubled = np.append(x * y[following] - x[following] * y, 0)
    areas = np.abs(np.add.reduceat(doubled, starts)) / 2 if len(starts) else np.zeros(0)
    owner = np.repeat(np.arange(len(outlines)), np.diff(outlines.polygon_offsets))
    total = np.bincount(owner, areas, minlength=len(outlines))
    found: np.ndarray = rows & (total < 1) & _is_large(boxes)
    for row in np.flatnonzero(found).tolist():
        height, width = outlines.sizes_hw[row].tolist()
        found[row] = not mask_ops.boxes([mask_ops.to_rle(outlines[row], (height, width))]).any()
    return found
