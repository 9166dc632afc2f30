"""Draws a small dataset of coloured shapes, to try the library on: boxes and masks, seconds to make."""

import colorsys
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32
from PIL import Image, ImageDraw, ImageFilter

from rfdetr.data.formats.coco_layout import ROBOFLOW as ANNOTATION_FILE
from rfdetr.data.layout import SPLITS
from rfdetr.errors import DatasetError
from rfdetr.files import write_text

IMAGE_SIZE = 192  # pixels, both sides
MAX_SHAPES = 6
MIN_SIDE, MAX_SIDE = 0.2, 0.6  # of the image
SHAPES = ("circle", "rectangle", "triangle", "star")
# As of real things, the colour is a cue to the class but no proof: hues of a class scatter around its own.
HUE_SPREAD = 0.08  # standard deviation, as part of the colour circle; the classes lie a quarter of it apart

_MADE_BY = "rfdetr demo"
_IMAGES = "shapes_*.jpg"
_SUPERSAMPLING = 4  # shapes are drawn this much larger, for smooth edges
_ATTEMPTS = 20  # to find a free place for a shape
_GAP = 3  # pixels between shapes
_SHADOW_OFFSET = 3  # pixels, to the right and down
_GRID = np.mgrid[:IMAGE_SIZE, :IMAGE_SIZE].astype(np.float32)  # y and x of each pixel

Polygon = Float[np.ndarray, "V 2"]
Plane = Float32[np.ndarray, "height width"]
Mask = Bool[np.ndarray, "height width"]
Pixels = Float32[np.ndarray, "height width 3"]


@dataclass(frozen=True)
class Shape:
    """A shape in its place: corners as (x, y) in pixels, and how much of each pixel it covers."""

    label: int
    corners: Polygon
    coverage: Plane

    @property
    def mask(self) -> Mask:
        return self.coverage >= 0.5


def draw_dataset(output_dir: Path, train_images: int, seed: int) -> None:
    """Training images in `train/`, a quarter as many each in `valid/` and `test/`, in COCO layout.

    One seed gives the same files, byte for byte. A dataset drawn here before is replaced; other files stay.

    Raises:
        DatasetError: a split's folder holds something else.
    """
    for split in SPLITS:
        _check_is_ours(output_dir / split)
    for number, split in enumerate(SPLITS):
        count = train_images if split == "train" else max(train_images // 4, 1)
        _draw_split(output_dir / split, count, [seed, number])


def _check_is_ours(folder: Path) -> None:
    if not folder.exists():
        return
    try:
        ours = json.loads((folder / ANNOTATION_FILE).read_text(encoding="utf-8"))["info"]["description"] == _MADE_BY
    except FileNotFoundError:  # drawing was interrupted, unless there is something else
        ours = all(path.match(_IMAGES) for path in folder.iterdir())
    except (OSError, ValueError, KeyError, TypeError):
        ours = False
    if not ours:
        raise DatasetError(f"{folder}: already there, and not drawn by `{_MADE_BY}`. Choose another output_dir")


def _draw_split(folder: Path, count: int, seed: list[int]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ANNOTATION_FILE).unlink(missing_ok=True)
    for old in folder.glob(_IMAGES):
        old.unlink()
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index in range(count):
        picture, shapes = draw_image(np.random.default_rng([*seed, index]))
        name = _IMAGES.replace("*", f"{index:04d}")
        picture.save(folder / name, quality=92)
        images.append({"id": index, "file_name": name, "width": IMAGE_SIZE, "height": IMAGE_SIZE})
        annotations += [
            {"id": len(annotations) + number, "image_id": index, **_annotation(shape)}
            for number, shape in enumerate(shapes, start=1)
        ]
    categories = [{"id": label, "name": name, "supercategory": "shape"} for label, name in enumerate(SHAPES)]
    content = {"info": {"description": _MADE_BY}, "images": images, "annotations": annotations}
    write_text(folder / ANNOTATION_FILE, json.dumps({**content, "categories": categories}))


def _annotation(shape: Shape) -> dict[str, Any]:
    """Box and area as measured on the pixels."""
    rows, columns = np.nonzero(shape.mask)
    x, y = int(columns.min()), int(rows.min())
    return {
        "category_id": shape.label,
        "bbox": [x, y, int(columns.max()) + 1 - x, int(rows.max()) + 1 - y],
        "area": len(rows),
        "segmentation": [shape.corners.round(2).ravel().tolist()],
        "iscrowd": 0,
    }


def draw_image(rng: np.random.Generator) -> tuple[Image.Image, list[Shape]]:
    """A picture and the shapes in it."""
    shapes = _place_shapes(rng, count=int(rng.integers(1, MAX_SHAPES, endpoint=True)))
    background = _background(rng)
    pixels = background.copy()
    for shape in shapes:
        pixels *= 1 - 0.45 * _shadow(shape.coverage)[..., None]
    for shape in shapes:
        hue = shape.label / len(SHAPES) + HUE_SPREAD * rng.standard_normal()
        colour = _colour_unlike(rng, background[shape.mask].mean(axis=0), hue)
        pixels += shape.coverage[..., None] * (_paint(rng, shape, colour) - pixels)
    pixels += 0.012 * rng.standard_normal(pixels.shape, dtype=np.float32)
    return Image.fromarray((pixels.clip(0, 1) * 255).astype(np.uint8)), shapes


def _place_shapes(rng: np.random.Generator, count: int) -> list[Shape]:
    """Up to `count` shapes that lie apart, so that each is seen whole; fewer where there is no room."""
    shapes: list[Shape] = []
    taken = np.zeros((IMAGE_SIZE, IMAGE_SIZE), dtype=bool)
    for _ in range(count):
        label = int(rng.integers(len(SHAPES)))
        for _ in range(_ATTEMPTS):
            corners = _in_place(rng, _outline(rng, SHAPES[label]))
            if (_coverage(corners, supersampling=1)[taken] == 0).all():
                shapes.append(Shape(label, corners, _coverage(corners)))
                taken |= _blurred(shapes[-1].coverage, ImageFilter.BoxBlur(_GAP)) > 0
                break
    return shapes


def _outline(rng: np.random.Generator, name: str) -> Polygon:
    """Corners around the origin, upright; of any size."""
    if name == "rectangle":
        width, height = 1.0, rng.uniform(0.5, 1)
        return np.array([(-width, -height), (width, -height), (width, height), (-width, height)])
    if name == "triangle":
        return _on_circle(np.deg2rad(np.array([90, 210, 330]) + rng.uniform(-15, 15, 3)))
    if name == "star":
        radii = np.where(np.arange(10) % 2, rng.uniform(0.4, 0.5), 1.0)
        return _on_circle(np.linspace(0, 2 * math.pi, 10, endpoint=False)) * radii[:, None]
    return _on_circle(np.linspace(0, 2 * math.pi, 40, endpoint=False))


def _on_circle(angles: Float[np.ndarray, "V"]) -> Polygon:
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _in_place(rng: np.random.Generator, outline: Polygon) -> Polygon:
    """The outline turned, scaled to a random size, and moved somewhere inside the image."""
    angle = rng.uniform(0, 2 * math.pi)
    turned = outline @ np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    turned -= turned.min(axis=0)
    scaled = turned * (rng.uniform(MIN_SIDE, MAX_SIDE) * IMAGE_SIZE / turned.max())
    return np.asarray(scaled + rng.uniform(1, IMAGE_SIZE - 1 - scaled.max(axis=0)), dtype=np.float32)


def _coverage(corners: Polygon, supersampling: int = _SUPERSAMPLING) -> Plane:
    canvas = Image.new("L", (IMAGE_SIZE * supersampling, IMAGE_SIZE * supersampling))
    # PIL counts from pixel centres.
    ImageDraw.Draw(canvas).polygon([(x, y) for x, y in corners * supersampling - 0.5], fill=255)
    return np.asarray(canvas.reduce(supersampling), dtype=np.float32) / 255


def _blurred(plane: Plane, blur: ImageFilter.MultibandFilter) -> Plane:
    image = Image.fromarray((plane * 255).astype(np.uint8))
    return np.asarray(image.filter(blur), dtype=np.float32) / 255


def _shadow(coverage: Plane) -> Plane:
    shifted = np.zeros_like(coverage)
    shifted[_SHADOW_OFFSET:, _SHADOW_OFFSET:] = coverage[:-_SHADOW_OFFSET, :-_SHADOW_OFFSET]
    return _blurred(shifted, ImageFilter.GaussianBlur(3))


def _background(rng: np.random.Generator) -> Pixels:
    """Two muted colours, mixed by a pattern with blotches over it."""
    dark, light = (_colour(rng, rng.uniform(), saturation=(0.05, 0.5)) for _ in range(2))
    blotches = sum(_noise(rng, cells) * weight for cells, weight in ((3, 0.5), (8, 0.3), (32, 0.2)))
    mix = 0.55 * _pattern(rng, rng.choice(["plain", "stripes", "checks", "dots"])) + 0.45 * blotches
    return np.asarray(dark + mix[..., None] * (light - dark))


def _noise(rng: np.random.Generator, cells: int) -> Plane:
    """Smooth random values in [0, 1], about `cells` hills along a side."""
    coarse = Image.fromarray(rng.integers(0, 256, (cells, cells)).astype(np.uint8))
    smooth = coarse.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BICUBIC)
    return np.asarray(smooth, dtype=np.float32) / 255


def _pattern(rng: np.random.Generator, name: str) -> Plane:
    """Values in [0, 1]; waves of 8 to 24 pixels along turned axes."""
    angle, wavelength = rng.uniform(0, math.pi), rng.uniform(8, 24)
    y, x = _GRID * (2 * math.pi / wavelength)
    along = np.sin(x * math.cos(angle) + y * math.sin(angle))
    across = np.sin(y * math.cos(angle) - x * math.sin(angle))
    wave = {"plain": 0 * along, "stripes": along, "checks": along * across, "dots": along + across - 0.9}[name]
    return np.asarray((0.5 + 2 * wave).clip(0, 1))


def _colour(rng: np.random.Generator, hue: float, saturation: tuple[float, float]) -> Float32[np.ndarray, "3"]:
    rgb = colorsys.hsv_to_rgb(hue % 1, rng.uniform(*saturation), rng.uniform(0.3, 1))
    return np.array(rgb, dtype=np.float32)


def _colour_unlike(rng: np.random.Generator, other: Float32[np.ndarray, "3"], hue: float) -> Float32[np.ndarray, "3"]:
    """A strong colour of a hue that stands out from another colour: the furthest of a few."""
    colours = [_colour(rng, hue, saturation=(0.5, 1)) for _ in range(4)]
    return max(colours, key=lambda colour: float(np.abs(colour - other).sum()))


def _paint(rng: np.random.Generator, shape: Shape, colour: Float32[np.ndarray, "3"]) -> Pixels:
    """The colour, lit from the upper left, maybe with a pattern, darker along the edge."""
    y, x = _GRID
    center = shape.corners.mean(axis=0)
    extent = np.ptp(shape.corners, axis=0).max()
    brightness = 1 - 0.35 * (x - center[0] + y - center[1]) / extent
    if rng.random() < 0.5:
        brightness = brightness * (1 - 0.3 * _pattern(rng, rng.choice(["stripes", "checks", "dots"])))
    inner = _coverage(center + (shape.corners - center) * 0.88)
    return np.asarray(colour * (brightness * (0.6 + 0.4 * inner))[..., None])
