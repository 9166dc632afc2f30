"""Masks, boxes and names of objects on an image."""

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple, TypeAlias
from unicodedata import combining, normalize

import numpy as np
from jaxtyping import Bool, Float
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont
from scipy.special import ndtri

Box: TypeAlias = tuple[int, int, int, int]
Color: TypeAlias = tuple[int, int, int]

# Distinct at a glance and on most photographs. A class keeps its colour from image to image.
PALETTE: tuple[Color, ...] = (
    (230, 57, 70),
    (0, 150, 136),
    (255, 190, 11),
    (67, 97, 238),
    (251, 116, 11),
    (156, 63, 201),
    (112, 193, 51),
    (0, 180, 216),
    (239, 71, 161),
    (141, 110, 99),
)
DARK, LIGHT, PAPER = (26, 26, 30), (255, 255, 255), (247, 247, 244)
# Opacity of a mask.
FILL = 0.4


class Mark(NamedTuple):
    """One object to draw."""

    box: Box
    mask: Bool[np.ndarray, "height width"] | None
    text: str
    """Empty: only its box and mask are drawn."""
    color: Color
    score: float

    @property
    def box_area(self) -> int:
        x1, y1, x2, y2 = self.box
        return (x2 - x1) * (y2 - y1)


def mark_of(
    box: Float[np.ndarray, "4"],
    class_id: int,
    name: str,
    size_wh: tuple[int, int],
    mask: Bool[np.ndarray, "height width"] | None = None,
    score: float | None = None,
) -> Mark:
    """How an object is drawn on an image of a size; one without a score is on top."""
    last = np.array([*size_wh, *size_wh]) - 1
    x1, y1, x2, y2 = (int(side) for side in np.clip(np.round(box), 0, last))
    name = drawable(name) or f"class {class_id}"
    text = name if score is None else f"{name} {score:.2f}"
    # Of the class, for masks too: a wrong class is seen at once, and truth and prediction look alike.
    return Mark((x1, y1, x2, y2), mask, text, color_of(class_id), 1.0 if score is None else score)


def color_of(class_id: int) -> Color:
    return PALETTE[class_id % len(PALETTE)]


def draw_marks(image: Image.Image, found: Sequence[Mark]) -> Image.Image:
    """A copy of the image with masks, boxes, names and scores, as far as there are any; the best on top."""
    canvas = image.convert("RGB")
    draw = ImageDraw.Draw(canvas)
    side = min(canvas.size)
    text_height, line = max(10, round(side / 34)), max(1, round(side / 220))
    font = ImageFont.load_default(text_height)
    marks = sorted(found, key=lambda mark: -mark.score)
    labels: list[Box] = []
    named = [mark for mark in marks if mark.text]
    for mark in named:  # the best has the first choice of place
        size_wh = (round(font.getlength(mark.text)) + text_height // 2, round(1.3 * text_height))
        labels.append(_place(mark.box, size_wh, canvas.size, labels))
    for mark in sorted(marks, key=lambda mark: -mark.box_area):  # small objects lie on large ones
        if mark.mask is not None:
            _draw_mask(canvas, mark.mask, mark.color, max(1, round(line / 2)))
    for mark in reversed(marks):
        draw.rectangle(mark.box, outline=mark.color, width=line)
    for mark, (left, top, right, bottom) in reversed([*zip(named, labels, strict=True)]):
        draw.rectangle((left, top, right, bottom), fill=mark.color)
        middle = ((left + right) / 2, (top + bottom) / 2)
        draw.text(middle, mark.text, fill=ink(mark.color), font=font, anchor="mm")
    return canvas


@cache
def drawable(name: str) -> str:
    """The name without accents if Pillow's font has all its letters (English ones, mostly), else nothing."""
    font = ImageFont.load_default(10)
    plain = "".join(letter for letter in normalize("NFKD", name) if not combining(letter))
    missing = bytes(font.getmask("\N{REPLACEMENT CHARACTER}"))
    return "" if any(bytes(font.getmask(letter)) == missing for letter in plain) else plain


def _draw_mask(canvas: Image.Image, mask: Bool[np.ndarray, "height width"], color: Color, line: int) -> None:
    """Draw the mask half transparent, with a rim in its colour and a light line along the rim."""
    shape = Image.fromarray(mask).convert("L")
    bounds = shape.getbbox()
    if bounds is None:
        return
    sigma = 2 * line
    (left, top, right, bottom), margin = bounds, 3 * sigma
    box = (left - margin, top - margin, right + margin, bottom + margin)
    shape = shape.crop(box)
    blurred = shape.filter(ImageFilter.GaussianBlur(sigma))
    # How far inside, in pixels, a blurred level is: the edge is a step, which becomes the normal distribution.
    depth = sigma * ndtri(np.arange(256) / 255)
    rim = np.clip(line - depth + 0.5, FILL, 1)
    light = np.clip(np.minimum(depth - line, 2 * line - depth) + 0.5, 0, 1)
    for ink, opacity in ((color, rim), (LIGHT, light)):
        levels = [round(255 * level) for level in opacity.tolist()]
        canvas.paste(ink, box, ImageChops.darker(shape, blurred.point(levels)))


def _place(box: Box, size_wh: tuple[int, int], image_wh: tuple[int, int], taken: Sequence[Box]) -> Box:
    """Where a label goes: above its box, below it or inside, whichever covers least of the others."""
    (x1, y1, x2, y2), (width, height) = box, size_wh
    places = []
    for y in (y1 - height, y2 + 1, y1, y2 - height):
        for x in (x1, x2 - width):
            left = max(0, min(x, image_wh[0] - 1 - width))
            top = max(0, min(y, image_wh[1] - 1 - height))
            places.append((left, top, left + width, top + height))
    return min(places, key=lambda place: sum(_overlap(place, other) for other in taken))


def _overlap(a: Box, b: Box) -> int:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    return max(0, width) * max(0, height)


def ink(background: Color) -> Color:
    """Black or white, whichever is easier to read (luma of ITU-R BT.601)."""
    red, green, blue = background
    return DARK if 0.299 * red + 0.587 * green + 0.114 * blue > 150 else LIGHT
