"""Pictures of shapes in pure colours, so that where an object is can be measured from pixels."""

from collections.abc import Callable
from typing import Any

import numpy as np

from rfdetr.classes import ClassTable
from rfdetr.config.recipes import Recipe
from rfdetr.data.annotations import Objects
from rfdetr.data.scenes import Scene, Source
from rfdetr.data.transforms import Augmenter
from rfdetr.masks import Segmentation, decode, encode, to_rle

# Of a class, by its id; the picture itself is black.
COLORS = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0], [255, 0, 255], [0, 255, 255], [255, 255, 255]])
CLASSES = ClassTable.from_categories((number, f"color {number}") for number in range(len(COLORS)))
NOTHING = Recipe.nothing_but()


def outline_of(kind: str, rng: np.random.Generator) -> np.ndarray:
    """A shape that fills the square from -1 to 1 about."""
    if kind == "rectangle":
        x, y = rng.uniform(0.4, 0.95, 2)
        return np.array([[-x, -y], [x, -y], [x, y], [-x, y]])
    count = 48 if kind == "ellipse" else 6
    angles = np.arange(count) * 2 * np.pi / count
    radii = rng.uniform(0.5, 0.95, (count, 1)) if kind == "polygon" else rng.uniform(0.4, 0.95, 2)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1) * radii


def drawn(seed: int, form: str = "polygons") -> Source:
    """Up to four shapes, each in a quarter of the picture; `form` of their outlines: polygons, code or none."""
    rng = np.random.default_rng(seed)
    height, width = (int(side) for side in rng.integers(200, 500, 2))
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    labels = rng.choice(len(COLORS), int(rng.integers(1, 5)), replace=False)
    boxes, outlines = [], list[Segmentation]()
    for cell, label in enumerate(labels):
        unit = outline_of(str(rng.choice(["rectangle", "ellipse", "polygon"])), rng)
        middle = np.array([1 + 2 * (cell % 2), 1 + 2 * (cell // 2)])
        polygon = (unit + middle) * [width / 4, height / 4]
        code = to_rle([polygon], (height, width))
        mask = decode(code)
        pixels[mask] = COLORS[label]
        boxes.append([*polygon.min(axis=0), *polygon.max(axis=0)])
        outlines.append([polygon] if form == "polygons" else code)
    objects = Objects(np.array(boxes, np.float32), labels.astype(np.int64), None if form == "none" else outlines)
    return Source(pixels, objects, (height, width))


def sampled(seed: int, size: int = 160, form: str = "polygons", recipe: Recipe = NOTHING, **changes: Any) -> Scene:
    """A sample of such pictures under a recipe."""
    load: Callable[[int], Source] = changes.get("load", lambda index: drawn(10 * seed + index, form))
    return Augmenter(recipe, load, 5, CLASSES).sample(0, np.random.default_rng([seed, 0, 0]), size)


def color_numbers(pixels: np.ndarray) -> np.ndarray:
    """The class whose colour is nearest, -1 for black."""
    palette = np.concatenate([COLORS, np.zeros((1, 3))])
    distances = ((pixels[:, :, None].astype(np.float64) - palette) ** 2).sum(axis=3)
    numbers: np.ndarray = distances.argmin(axis=2)
    return np.where(numbers == len(COLORS), -1, numbers)


def corners_of(scene: Scene) -> np.ndarray:
    """Boxes as xyxy in pixels of the scene, to three digits."""
    height, width = scene.size_hw
    centers, sides = scene.boxes[:, :2], scene.boxes[:, 2:]
    corners = np.concatenate([centers - sides / 2, centers + sides / 2], axis=1) * [width, height, width, height]
    rounded: np.ndarray = corners.round(3)
    return rounded


def seen_near(numbers: np.ndarray, label: int, corners: np.ndarray, margin: int = 4) -> np.ndarray | None:
    """Xyxy around the pixels of a colour in and around a box; None where there are none."""
    height, width = numbers.shape
    x1, y1 = (max(0, int(side) - margin) for side in corners[:2])
    x2, y2 = (min(limit, int(side) + margin + 1) for side, limit in zip(corners[2:], (width, height), strict=True))
    rows, columns = np.nonzero(numbers[y1:y2, x1:x2] == label)
    if not len(rows):
        return None
    return np.array([columns.min() + x1, rows.min() + y1, columns.max() + 1 + x1, rows.max() + 1 + y1])


def encoded(mask: np.ndarray) -> Segmentation:
    return encode(mask[None])[0]
