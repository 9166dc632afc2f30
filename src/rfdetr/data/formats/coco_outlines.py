"""Outlines as COCO writes them: polygons and run-length code."""

from array import array
from typing import Any

import numpy as np

from rfdetr import masks as mask_ops


def side(value: Any) -> int:
    """0 where it is no length."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return 0
    return int(number) if 0 < number < 2**31 and number.is_integer() and not isinstance(value, bool) else 0


def polygon_problem(polygon: Any) -> str | None:
    if not isinstance(polygon, list):
        return "that are not lists [x, y, x, y, ...]"
    try:
        array("d").fromlist(polygon)
    except (TypeError, OverflowError):
        return "whose coordinates are not numbers"
    if not all(-1e300 < number < 1e300 for number in polygon):
        return "whose coordinates are not finite numbers"
    if len(polygon) % 2:
        return "with an odd number of coordinates"
    return "with fewer than three points" if len(polygon) < 6 else None


def run_length_code(value: Any) -> tuple[bytes, tuple[int, int]]:
    """Compressed run-length code and the (height, width) it is for.

    Raises:
        ValueError: it is none; the message is a kind of problem.
    """
    if not isinstance(value, dict) or not isinstance(value.get("counts"), str | list):
        raise ValueError(
            "outlines that are neither polygons [[x, y, x, y, ...], ...] nor run-length code "
            "{'size': [height, width], 'counts': ...}"
        )
    size, counts = value.get("size"), value["counts"]
    if not isinstance(size, list) or len(size) != 2 or not all(map(side, size)):
        raise ValueError("run-length code whose 'size' is not [height, width]")
    height, width = map(side, size)
    if height * width >= 2**32:
        raise ValueError("run-length code whose 'size' is beyond all pictures")
    try:
        runs = mask_ops.run_lengths(counts.encode("ascii")).tolist() if isinstance(counts, str) else counts
        if not all(type(run) is int and run >= 0 for run in runs):
            raise ValueError
    except ValueError:
        raise ValueError("run-length code whose 'counts' are not run lengths") from None
    if sum(runs) != height * width:
        raise ValueError("run-length code that does not fill its size exactly")
    if not sum(runs[1::2]):
        raise ValueError("run-length code without a pixel of its object")
    if isinstance(counts, list):
        return mask_ops.from_runs(counts, (height, width))["counts"], (height, width)
    return counts.encode("ascii"), (height, width)


def box_around(polygons: list[list[float]], code: tuple[bytes, tuple[int, int]] | None) -> list[float]:
    """The [x, y, width, height] of an outline."""
    if code is not None:
        counts, (height, _) = code
        ends = mask_ops.run_lengths(counts).cumsum()
        # Pixels go down the columns: a run that reaches into the next column has pixels at its top and bottom.
        left, top = np.divmod(ends[:-1:2], height)
        right, bottom = np.divmod(ends[1::2] - 1, height)
        is_long = right > left
        top, bottom = np.where(is_long, 0, top), np.where(is_long, height - 1, bottom)
        x, y = int(left.min()), int(top.min())
        return [float(x), float(y), float(right.max() + 1 - x), float(bottom.max() + 1 - y)]
    xs = [x for polygon in polygons for x in polygon[0::2]]
    ys = [y for polygon in polygons for y in polygon[1::2]]
    return [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]
