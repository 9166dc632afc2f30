"""The outlines of all objects of a split, in a few arrays: loader processes share them without copying."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64, UInt8

from rfdetr.data.raw import Outlines
from rfdetr.masks import Rle, Segmentation


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

    def __len__(self) -> int:
        """Number of objects."""
        return len(self.sizes_hw)

    def take(self, rows: Int64[np.ndarray, "K"]) -> "Segmentations":
        """Those of some objects."""
        polygon_offsets, polygons = taken(self.polygon_offsets, rows)
        point_offsets, points = taken(self.point_offsets, polygons)
        code_offsets, codes = taken(self.code_offsets, rows)
        return Segmentations(
            self.sizes_hw[rows], polygon_offsets, point_offsets, self.points[points], code_offsets, self.codes[codes]
        )

    def with_rectangles(self, rows: Int64[np.ndarray, "K"], boxes_xywh: Float64[np.ndarray, "K 4"]) -> "Segmentations":
        """The same, some objects having their box as outline instead."""
        is_other = np.zeros(len(self), np.bool_)
        is_other[rows] = True
        polygons_of = np.where(is_other, 1, np.diff(self.polygon_offsets))
        polygon_offsets = offsets(polygons_of)
        # All polygons, the rectangles behind the others; then each object gets its own.
        corners = np.concatenate([boxes_xywh[:, :2], boxes_xywh[:, :2] + boxes_xywh[:, 2:]], axis=1)
        rectangles = corners[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 2)
        all_points = np.concatenate([self.points, rectangles])
        all_offsets = np.concatenate([self.point_offsets, self.point_offsets[-1] + 4 * np.arange(1, len(rows) + 1)])
        source = np.empty(polygon_offsets[-1], np.int64)
        is_rectangle = np.repeat(is_other, polygons_of)
        source[~is_rectangle] = taken(self.polygon_offsets, np.flatnonzero(~is_other))[1]
        number = np.empty(len(self), np.int64)
        number[rows] = np.arange(len(rows))
        source[is_rectangle] = len(self.point_offsets) - 1 + number[is_other]
        point_offsets, points = taken(all_offsets, source)
        kept = np.where(is_other, 0, np.diff(self.code_offsets))
        codes = self.codes[np.repeat(~is_other, np.diff(self.code_offsets))]
        return Segmentations(self.sizes_hw, polygon_offsets, point_offsets, all_points[points], offsets(kept), codes)


def packed(outlines: Outlines, sizes_hw: Int64[np.ndarray, "M 2"]) -> Segmentations:
    """What a reader has collected; `sizes_hw` are those of the objects' images."""
    return Segmentations(
        sizes_hw=sizes_hw,
        polygon_offsets=offsets(np.array(outlines.polygons, np.int64)),
        point_offsets=offsets(np.array(outlines.points, np.int64)),
        points=np.array(outlines.coordinates, np.float64).reshape(-1, 2),
        code_offsets=offsets(np.array(outlines.code_lengths, np.int64)),
        codes=np.frombuffer(bytes(outlines.codes), np.uint8),
    )


def offsets(lengths: Int64[np.ndarray, "N"]) -> Int64[np.ndarray, "N+1"]:
    """Where parts of such lengths begin, one behind the other, and where the last one ends."""
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def taken(
    starts: Int64[np.ndarray, "S"], rows: Int64[np.ndarray, "K"]
) -> tuple[Int64[np.ndarray, "K+1"], Int64[np.ndarray, "E"]]:
    """The offsets of some parts put one behind the other, and the elements that they are made of."""
    lengths = np.diff(starts)[rows]
    new = offsets(lengths)
    return new, np.repeat(starts[rows] - new[:-1], lengths) + np.arange(new[-1])


def lengths_of_polygons(outlines: Segmentations) -> Float64[np.ndarray, "P"]:
    """An upper bound of the length of each polygon in pixels: the sum of its steps in x and y."""
    steps = np.abs(np.diff(outlines.points, axis=0, prepend=outlines.points[:1])).sum(axis=1)
    starts = outlines.point_offsets[:-1]
    steps[starts[starts < len(steps)]] = 0  # the step from the polygon before
    return np.add.reduceat(np.append(steps, 0), starts) if len(starts) else np.empty(0)


def boxes_of_outlines(outlines: Segmentations, has_polygons: Bool[np.ndarray, "M"]) -> Float64[np.ndarray, "K 4"]:
    """Left, top, right and bottom of the polygons of the objects that have some."""
    starts = outlines.point_offsets[outlines.polygon_offsets[:-1][has_polygons]]
    if not len(starts):
        return np.empty((0, 4))
    points = outlines.points
    return np.concatenate([np.minimum.reduceat(points, starts), np.maximum.reduceat(points, starts)], axis=1)
