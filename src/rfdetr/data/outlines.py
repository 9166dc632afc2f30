"""The rules for outlines of objects. For one that cannot be used, or that is missing, the object's box stands in."""

import numpy as np
from jaxtyping import Bool, Float64, Int64

from rfdetr.data.cleaning import Place
from rfdetr.data.problems import Problems
from rfdetr.data.raw import RawSplit
from rfdetr.data.segmentations import Segmentations, boxes_of_outlines, lengths_of_polygons, packed

MISSING = "objects without an outline (the box serves as mask)"


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
    refuse(
        _is_elsewhere(outlines, boxes, has_polygons),
        "polygons that are a point or lie beside the box of their object (are both in pixels?)",
    )
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


def _is_elsewhere(
    outlines: Segmentations, boxes: Float64[np.ndarray, "M 4"], has_polygons: Bool[np.ndarray, "M"]
) -> Bool[np.ndarray, "M"]:
    """Polygons in fractions of the image instead of pixels, for one, would make an empty mask of every object."""
    found = np.zeros(len(outlines), np.bool_)
    around, own = boxes_of_outlines(outlines, has_polygons), boxes[has_polygons]
    start, end = own[:, :2], own[:, :2] + own[:, 2:]
    is_large = (own[:, 2:] >= 2).all(axis=1)
    is_point = ((around[:, 2:] - around[:, :2]) < 1).all(axis=1) & is_large
    is_beside = ((around[:, 2:] < start) | (around[:, :2] > end)).any(axis=1) & (own[:, 2:] > 0).all(axis=1)
    found[has_polygons] = is_point | is_beside
    return found
