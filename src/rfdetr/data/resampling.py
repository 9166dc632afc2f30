"""Pictures of any depth at another size: by a whole factor while they are read, then by one antialiased resize."""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from jaxtyping import Shaped
from PIL import Image

# Of uint8, uint16 or float32 in [0, 1], in rows; three channels are RGB.
Picture: TypeAlias = Shaped[np.ndarray, "_ _ _"]

Region = tuple[int, int, int, int]
"""Left, top, right and bottom, in whole pixels of a picture."""

FACTORS = (8, 4, 2)  # of JPEG's reduced decoding


def reduction(size_hw: tuple[int, int], at_least: int | None) -> int:
    """The largest factor of reduced decoding that leaves the shorter side at `at_least` pixels; None: 1."""
    if not at_least:
        return 1
    return next((factor for factor in FACTORS if min(size_hw) // factor >= at_least), 1)


def reduced_hw(size_hw: tuple[int, int], factor: int) -> tuple[int, int]:
    """The last pixel of an axis may stand for fewer than `factor`."""
    return -(-size_hw[0] // factor), -(-size_hw[1] // factor)


def picture_hw(picture: Picture) -> tuple[int, int]:
    height, width, _ = picture.shape
    return height, width


def picture_factor(picture: Picture, size_hw: tuple[int, int]) -> int:
    """By which a picture of this full size was reduced.

    Pixels at the right and lower edge may stand for less than a whole one: sizes alone would not give the scale.
    """
    height, width = picture_hw(picture)
    return max(1, round(max(size_hw[0] / height, size_hw[1] / width)))


def reduce(picture: Picture, factor: int) -> Picture:
    """Every pixel the mean of `factor` x `factor`."""
    return picture if factor == 1 else _in_pillow(picture, lambda image: image.reduce(factor))


def nearest_region(
    picture: Picture, size_hw: tuple[int, int], crop_xyxy: tuple[float, float, float, float]
) -> tuple[Region, tuple[float, float, float, float]]:
    """A region within a picture of this full size, moved to the nearest whole pixels of what there is of the picture.

    And where it lies now in pixels of the full size. The picture's own edges stay where they are, even if the pixels
    there stand for less than whole ones.
    """
    factor = picture_factor(picture, size_hw)
    height, width = size_hw
    left, right = _nearest_pixels(crop_xyxy[0], crop_xyxy[2], width, factor)
    top, bottom = _nearest_pixels(crop_xyxy[1], crop_xyxy[3], height, factor)
    x1, x2 = (float(min(side * factor, width)) for side in (left, right))
    y1, y2 = (float(min(side * factor, height)) for side in (top, bottom))
    return (left, top, right, bottom), (x1, y1, x2, y2)


def _nearest_pixels(start: float, end: float, size: int, factor: int) -> tuple[int, int]:
    """At least one of them."""
    count = -(-size // factor)
    first = min(round(start / factor), count - 1)
    last = count if end >= size else round(end / factor)
    return first, min(max(last, first + 1), count)


def resample(
    picture: Picture,
    size_hw: tuple[int, int],
    crop_xyxy: tuple[float, float, float, float],
    output_hw: tuple[int, int],
) -> Picture:
    """A region of a picture at another size, by one antialiased bilinear resize.

    Args:
        picture: at full size, or reduced by a factor of `reduction`.
        size_hw: its full size.
        crop_xyxy: the region in pixels of the full size, not rounded; within the picture.
        output_hw: of the result, which has the picture's type.
    """
    height, width = picture_hw(picture)
    scale = 1 / picture_factor(picture, size_hw)
    x1, y1, x2, y2 = (side * scale for side in crop_xyxy)
    # Rounding may lead to just outside, which Pillow refuses.
    box = (max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height)))
    output_wh = (output_hw[1], output_hw[0])
    return _in_pillow(picture, lambda image: image.resize(output_wh, Image.Resampling.BILINEAR, box=box))


def resized(picture: Picture, output_hw: tuple[int, int]) -> Picture:
    """The whole picture, by one antialiased bilinear resize."""
    height, width = picture_hw(picture)
    return resample(picture, (height, width), (0.0, 0.0, float(width), float(height)), output_hw)


def smaller(picture: Picture, longest_side: int) -> Picture:
    """The picture with no side longer than that, its aspect ratio kept."""
    height, width = picture_hw(picture)
    scale = longest_side / max(height, width)
    if scale >= 1:
        return picture
    return resized(picture, (max(1, round(height * scale)), max(1, round(width * scale))))


def _in_pillow(pixels: Picture, change: Callable[[Image.Image], Image.Image]) -> Picture:
    """RGB at once. Else each channel as a picture of its own: more than four have no mode in Pillow, and an alpha would
    weigh the others.

    8 bits are computed with as in RGB; more as floating-point numbers, whose 24 bits are enough for 16.
    """
    if pixels.dtype == np.uint8 and pixels.shape[2] == 3:
        return np.asarray(change(Image.fromarray(np.ascontiguousarray(pixels))))
    mode = np.uint8 if pixels.dtype == np.uint8 else np.float32
    channels = [
        np.asarray(change(Image.fromarray(np.ascontiguousarray(pixels[..., channel], dtype=mode))))
        for channel in range(pixels.shape[2])
    ]
    result = np.stack(channels, axis=2)
    return np.rint(result).astype(np.uint16) if pixels.dtype == np.uint16 else result
