"""Masks of objects as polygons, run-length code and bitmaps. Pixels are counted as pycocotools counts them."""

from collections.abc import Sequence
from typing import TypeAlias, cast

import numpy as np
from hotcoco import mask as coco_mask
from jaxtyping import Bool, Float64, Int64
from typing_extensions import TypedDict


class Rle(TypedDict):
    """Run-length code of a mask, column by column, in COCO's compressed form."""

    size: list[int]  # height, width
    counts: bytes


Polygons: TypeAlias = list[Float64[np.ndarray, "_ 2"]]  # x and y in pixels; an object is the union of its polygons
Segmentation: TypeAlias = Polygons | Rle


def encode(masks: Bool[np.ndarray, "N height width"]) -> list[Rle]:
    rles: list[Rle] = coco_mask.encode(masks.transpose(1, 2, 0))
    return rles


def decode(rle: Rle) -> Bool[np.ndarray, "height width"]:
    mask: Bool[np.ndarray, "height width"] = coco_mask.decode({**rle}).view(np.bool_)
    return mask


def to_rle(segmentation: Segmentation, size_hw: tuple[int, int]) -> Rle:
    if not isinstance(segmentation, list):
        return segmentation
    height, width = size_hw
    if not segmentation:
        return from_runs([height * width], size_hw)
    parts = coco_mask.frPyObjects([polygon.ravel().tolist() for polygon in segmentation], height, width)
    return cast("Rle", coco_mask.merge(parts))


def from_runs(runs: Sequence[int], size_hw: tuple[int, int]) -> Rle:
    """Code of run lengths that alternate, background first, and fill the image."""
    return cast("Rle", coco_mask.frPyObjects({"size": list(size_hw), "counts": runs}, *size_hw))


def run_lengths(counts: bytes) -> Int64[np.ndarray, "R"]:
    """The runs of compressed code: background and object in turn, background first.

    Raises:
        ValueError: this is no such code.
    """
    # Characters from "0" on carry 5 bits each, lowest first; 0x20 says that the number goes on.
    bits = np.frombuffer(counts, dtype=np.uint8) - np.uint8(48)
    is_last = (bits & 0x20) == 0
    if not len(bits) or bits.max() > 0x3F or not is_last[-1]:
        raise ValueError("not a sequence of numbers")
    ends = np.flatnonzero(is_last)
    digits = np.diff(ends, prepend=-1)
    if digits.max() > 7:
        raise ValueError("a number of more than 32 bits")
    starts = ends - digits + 1
    place = np.arange(len(bits)) - np.repeat(starts, digits)
    runs: Int64[np.ndarray, "R"] = np.add.reduceat((bits & 0x1F).astype(np.int64) << 5 * place, starts)
    runs -= np.where(bits[ends] & 0x10, np.int64(1) << 5 * digits, 0)  # a negative number
    # From the fourth on, a number is the difference to the run two before.
    for start in (1, 2):
        runs[start::2] = runs[start::2].cumsum()
    if runs.min() < 0 or runs.max() >= 2**32:
        raise ValueError("a run that is negative or of more than 32 bits")
    return runs


def boxes(rles: Sequence[Rle]) -> Float64[np.ndarray, "N 4"]:
    """Left, top, right and bottom of the pixels of each code; zeros where it has none."""
    if not rles:
        return np.zeros((0, 4))
    found: Float64[np.ndarray, "N 4"] = np.array(coco_mask.toBbox([{**rle} for rle in rles]), np.float64)
    found[:, 2:] += found[:, :2]
    return found


def seen(
    segmentation: Segmentation,
    size_hw: tuple[int, int],
    crop_xyxy: tuple[float, float, float, float],
    input_hw: tuple[int, int],
) -> Bool[np.ndarray, "height width"]:
    """What a region inside an image of `size_hw` shows of an object, at the size of the input."""
    if isinstance(segmentation, list):
        x1, y1, x2, y2 = crop_xyxy
        height, width = input_hw
        scale = np.array([width, height]) / np.array([x2 - x1, y2 - y1])
        return decode(to_rle([(polygon - (x1, y1)) * scale for polygon in segmentation], input_hw))
    return _sample(segmentation, size_hw, crop_xyxy, input_hw)


def _sample(
    rle: Rle, size_hw: tuple[int, int], crop_xyxy: tuple[float, float, float, float], input_hw: tuple[int, int]
) -> Bool[np.ndarray, "rows columns"]:
    """Code seen at the centres of the input's pixels. It is not decoded: its runs are moved to the input's grid."""
    height, width = size_hw
    x1, y1, x2, y2 = crop_xyxy
    input_height, input_width = input_hw
    rows = (y1 + _centers(input_height) * (y2 - y1)).astype(np.int64).clip(max=height - 1)
    column_of = (x1 + _centers(input_width) * (x2 - x1)).astype(np.int64).clip(max=width - 1)
    columns, index = np.unique(column_of, return_inverse=True)

    column, row = np.divmod(run_lengths(rle["counts"]).cumsum()[:-1], height)
    before, up_to = columns.searchsorted(column), columns.searchsorted(column, side="right")
    changes = before * input_height + (up_to - before) * rows.searchsorted(row)
    runs = np.diff(changes, prepend=0, append=len(columns) * input_height)
    by_column = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(-1, input_height)
    mask: Bool[np.ndarray, "rows columns"] = by_column[index].T
    return mask


def _centers(size: int) -> Float64[np.ndarray, "size"]:
    centers: Float64[np.ndarray, "size"] = (np.arange(size) + 0.5) / size
    return centers
