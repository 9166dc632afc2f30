"""Several pictures as one: mosaic (arXiv:2004.10934), mixup (arXiv:1710.09412), copy-paste (arXiv:2012.07177)."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Bool

from rfdetr.data.channels import Pixels, of_one_type
from rfdetr.data.colour import blended
from rfdetr.data.geometry import MIN_VISIBLE
from rfdetr.data.scenes import Scene, bounds, joined

# The corner where the four pictures of a mosaic meet, as fractions of its sides.
MEETING = (0.35, 0.65)
# Of Beta(32, 32), as in YOLOX: both pictures are about as visible.
MIXUP_BETA = 32.0
# An object of the other picture is pasted with this chance.
PASTED = 0.5

Masks = Bool[np.ndarray, "T height width"]
Tile = tuple[int, int, int, int]
"""Left, top, right, bottom."""


def draw_tiles(rng: np.random.Generator, size: int) -> list[Tile]:
    """Four rectangles that fill a square."""
    x, y = (round(size * rng.uniform(*MEETING)) for _ in range(2))
    return [(0, 0, x, y), (x, 0, size, y), (0, y, x, size), (x, y, size, size)]


def mosaic(tiles: Sequence[Tile], show: Callable[[int, tuple[int, int]], Scene], size: int) -> Scene:
    """The scenes that `show` gives for (number of the tile, its height and width), each in its tile."""
    scenes = [show(number, (bottom - top, right - left)) for number, (left, top, right, bottom) in enumerate(tiles)]
    pictures = of_one_type(*(scene.pixels for scene in scenes))
    canvas = np.empty((size, size, pictures[0].shape[2]), dtype=pictures[0].dtype)
    for pixels, (left, top, right, bottom) in zip(pictures, tiles, strict=True):
        canvas[top:bottom, left:right] = pixels
    return joined(canvas, [_in_tile(scene, tile, canvas) for scene, tile in zip(scenes, tiles, strict=True)])


def _in_tile(scene: Scene, tile: Tile, canvas: Pixels) -> Scene:
    """The objects of a tile in the whole canvas."""
    (left, top, right, bottom), size = tile, len(canvas)
    scale = np.array([right - left, bottom - top, right - left, bottom - top], dtype=np.float32) / size
    boxes = scene.boxes * scale + np.array([left, top, 0, 0], dtype=np.float32) / size
    masks = None
    if scene.masks is not None:
        masks = np.zeros((len(scene.masks), size, size), dtype=np.bool_)
        masks[:, top:bottom, left:right] = scene.masks
    return Scene(canvas, boxes.astype(np.float32), scene.labels, masks)


def mixup(scene: Scene, other: Scene, rng: np.random.Generator) -> Scene:
    """Both pictures, each half transparent, with the objects of both."""
    one, another = of_one_type(scene.pixels, other.pixels)
    return joined(blended(one, another, float(rng.beta(MIXUP_BETA, MIXUP_BETA))), [scene, other])


def copy_paste(scene: Scene, other: Scene, rng: np.random.Generator) -> Scene:
    """Some objects of another picture before this one, cut out along their outlines; what they hide, they hide."""
    if scene.masks is None or other.masks is None:
        return scene
    chosen = np.flatnonzero((rng.random(len(other.labels)) < PASTED) & other.masks.any(axis=(1, 2)))
    if not len(chosen):
        return scene
    cover: Bool[np.ndarray, "height width"] = np.logical_or.reduce(other.masks[chosen])
    own, pasted = of_one_type(scene.pixels, other.pixels)
    pixels = np.where(cover[..., None], pasted, own)
    return joined(pixels, [_covered(scene, scene.masks, cover), other.of(chosen)])


def _covered(scene: Scene, whole: Masks, cover: Bool[np.ndarray, "height width"]) -> Scene:
    """What is left of the objects behind a cover; they go where less than a tenth of them is seen.

    An object without an outline stays as it is: how much of it is hidden is not known.
    """
    masks = whole & ~cover
    before, after = whole.sum(axis=(1, 2)), masks.sum(axis=(1, 2))
    boxes = scene.boxes.copy()
    for row in np.flatnonzero((after < before) & (after > 0)):
        boxes[row] = bounds(masks[row])
    kept = (before == 0) | (after > MIN_VISIBLE * before)
    return replace(scene, boxes=boxes, masks=masks).of(kept)
