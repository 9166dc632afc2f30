"""The outlines of all objects of a split, in a few arrays: loader processes share them without copying."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64, UInt8

from rfdetr.masks import Rle, Segmentation, from_runs


@dataclass(frozen=True, eq=False)
class Segmentations:
    """Each object has polygons or run-length code; the other is empty.

    Those of object i are `polygon_offsets[i]:polygon_offsets[i + 1]` and `code_offsets[i]:code_offsets[i + 1]`; the
    points of polygon j are `point_offsets[j]:point_offsets[j + 1]`.
    """

    sizes_hw: Int64[np.ndarray, "M 2"]  # of the object's image
    polygon_offsets: Int64[np.ndarray, "M+1"]
    point_offsets: Int64[np.ndarray, "P"]
    points: Float64[np.ndarray, "V 2"]  # with fewer bits, pycocotools would round some to other pixels
    code_offsets: Int64[np.ndarray, "M+1"]
    codes: UInt8[np.ndarray, "C"]

    def __getitem__(self, row: int) -> Segmentation:
        code = self.codes[self.code_offsets[row] : self.code_offsets[row + 1]]
        if len(code):
            return Rle(size=self.sizes_hw[row].tolist(), counts=code.tobytes())
        polygons = range(self.polygon_offsets[row], self.polygon_offsets[row + 1])
        return [self.points[self.point_offsets[j] : self.point_offsets[j + 1]] for j in polygons]


def pack(values: Sequence[Any], sizes_hw: Int64[np.ndarray, "M 2"]) -> Segmentations:
    """From the checked `segmentation` fields of a COCO file, one for each object; a missing one becomes no polygons."""
    outlines = [value if isinstance(value, list) else [] for value in values]
    codes = [_code(value, size_hw) for value, size_hw in zip(values, sizes_hw, strict=True)]
    polygons = list(chain.from_iterable(outlines))
    return Segmentations(
        sizes_hw=sizes_hw,
        polygon_offsets=_offsets(map(len, outlines)),
        point_offsets=_offsets(len(polygon) // 2 for polygon in polygons),
        points=np.fromiter(chain.from_iterable(polygons), dtype=np.float64).reshape(-1, 2),
        code_offsets=_offsets(map(len, codes)),
        codes=np.frombuffer(b"".join(codes), dtype=np.uint8),
    )


def _code(value: Any, size_hw: Int64[np.ndarray, "2"]) -> bytes:
    if not value or isinstance(value, list):
        return b""
    counts = value["counts"]
    if isinstance(counts, str):
        return counts.encode("ascii")
    height, width = size_hw.tolist()
    return from_runs(counts, (height, width))["counts"]


def _offsets(lengths: Iterable[int]) -> Int64[np.ndarray, "E"]:
    return np.fromiter(chain([0], lengths), dtype=np.int64).cumsum()
