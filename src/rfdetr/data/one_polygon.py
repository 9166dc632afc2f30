"""Any outline as a single polygon, for formats that hold no more than one for each object."""

import numpy as np
from jaxtyping import Bool, Float64

from rfdetr.masks import Polygons, Segmentation, decode, run_lengths, to_rle

Polygon = Float64[np.ndarray, "_ 2"]
# A step of the border around pixels, with the object on its right (y points down): right, down, left, up.
_STEPS = ((1, 0), (0, 1), (-1, 0), (0, -1))


def one_polygon(segmentation: Segmentation, size_hw: tuple[int, int]) -> Polygon:
    """X and y in pixels of a polygon with the same mask, as pycocotools draws it.

    Parts become one by bridges without width. Code, and parts that overlap, are traced along the edges of their pixels.
    """
    if isinstance(segmentation, list):
        if len(segmentation) == 1:
            return segmentation[0]
        joined = join(segmentation)
        if _runs(segmentation, size_hw) == _runs([joined], size_hw):
            return joined
    return join(trace(decode(to_rle(segmentation, size_hw))))


def _runs(polygons: Polygons, size_hw: tuple[int, int]) -> list[int]:
    runs: list[int] = run_lengths(to_rle(polygons, size_hw)["counts"]).tolist()
    return runs


def join(polygons: Polygons) -> Polygon:
    """Polygons as one: from a corner of what is joined already to the nearest one of the next, around it and back."""
    joined, *others = polygons
    while others:
        bridges = [_bridge(joined, other) for other in others]
        nearest = min(range(len(others)), key=lambda index: bridges[index][0])
        _, here, there = bridges[nearest]
        other = others.pop(nearest)
        around = np.concatenate([other[there:], other[: there + 1]])
        joined = np.concatenate([joined[: here + 1], around, joined[here:]])
    return joined


def _bridge(joined: Polygon, other: Polygon) -> tuple[float, int, int]:
    """Squared length of the shortest way between two corners, and which these are."""
    # One corner at a time: two outlines of thousands of pixels would be a matrix of gigabytes.
    distances = np.array([((joined - corner) ** 2).sum(axis=1).min() for corner in other])
    there = int(distances.argmin())
    here = int(((joined - other[there]) ** 2).sum(axis=1).argmin())
    return float(distances[there]), here, there


def trace(mask: Bool[np.ndarray, "height width"]) -> Polygons:
    """The borders of a mask along the edges of its pixels, those of holes among them; none where it is empty."""
    edges = _edges(mask)
    polygons: Polygons = []
    while edges:
        start = next(iter(edges))
        corners, place, last = [], start, None
        while True:
            ways = edges[place]
            # Where two pixels meet at a corner alone, both borders turn away from each other.
            way = ways.pop(0 if len(ways) == 1 or last is None else ways.index((last + 1) % 4))
            if not ways:
                del edges[place]
            if way != last:
                corners.append(place)
            place, last = (place[0] + _STEPS[way][0], place[1] + _STEPS[way][1]), way
            if place == start and (place not in edges or (last + 1) % 4 not in edges[place]):
                break
        polygons.append(np.array(corners, np.float64))
    return polygons


def _edges(mask: Bool[np.ndarray, "height width"]) -> dict[tuple[int, int], list[int]]:
    """Corner (x, y) -> the directions in which borders leave it."""
    inside = np.pad(mask, 1)
    edges: dict[tuple[int, int], list[int]] = {}

    def add(is_border: Bool[np.ndarray, "height width"], way: int, down: int, right: int) -> None:
        for y, x in np.argwhere(is_border).tolist():
            edges.setdefault((x + right, y + down), []).append(way)

    # Of pixel (row, column) the corners are (column, row) to (column + 1, row + 1).
    here = inside[1:-1, 1:-1]
    add(here & ~inside[:-2, 1:-1], 0, 0, 0)
    add(here & ~inside[1:-1, 2:], 1, 0, 1)
    add(here & ~inside[2:, 1:-1], 2, 1, 1)
    add(here & ~inside[1:-1, :-2], 3, 1, 0)
    return edges
