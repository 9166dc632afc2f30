"""Pictures of any depth at another size: by a whole factor while they are read, then by one antialiased resize."""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from PIL import Image

from rfdetr.data.channels import Pixels

# Of mode RGB, or an array of uint8, uint16 or float32 in [0, 1].
Picture: TypeAlias = Image.Image | Pixels

FACTORS = (8, 4, 2)  # of JPEG's reduced decoding


def picture_hw(picture: Picture) -> tuple[int, int]:
    return (picture.height, picture.width) if isinstance(picture, Image.Image) else picture.shape[:2]


def reduction(size_hw: tuple[int, int], at_least: int | None) -> int:
    """The largest factor of reduced decoding that leaves the shorter side at `at_least` pixels; None: 1."""
    if not at_least:
        return 1
    return next((factor for factor in FACTORS if min(size_hw) // factor >= at_least), 1)


def reduced_hw(size_hw: tuple[int, int], factor: int) -> tuple[int, int]:
    """The last pixel of an axis may stand for fewer than `factor`."""
    return -(-size_hw[0] // factor), -(-size_hw[1] // factor)


def reduce(picture: Picture, factor: int) -> Picture:
    """Every pixel the mean of `factor` x `factor`."""
    if factor == 1:
        return picture
    if isinstance(picture, Image.Image):
        return picture.reduce(factor)
    return _by_channel(picture, lambda channel: channel.reduce(factor))


def resample(
    picture: Picture,
    size_hw: tuple[int, int],
    crop_xyxy: tuple[float, float, float, float],
    output_hw: tuple[int, int],
) -> Pixels:
    """A region of a picture at another size, by one antialiased bilinear resize.

    Args:
        picture: at full size, or reduced by a factor of `reduction`.
        size_hw: its full size.
        crop_xyxy: the region in pixels of the full size, not rounded; within the picture.
        output_hw: of the result, which has the picture's type.
    """
    height, width = picture_hw(picture)
    # Pixels at the right and lower edge may stand for less than a whole one: sizes alone would not give the scale.
    scale = 1 / max(1, round(max(size_hw[0] / height, size_hw[1] / width)))
    x1, y1, x2, y2 = (side * scale for side in crop_xyxy)
    # Rounding may lead to just outside, which Pillow refuses.
    box = (max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height)))
    output_wh = (output_hw[1], output_hw[0])
    if isinstance(picture, Image.Image):
        return np.asarray(picture.resize(output_wh, Image.Resampling.BILINEAR, box=box))
    return _by_channel(picture, lambda channel: channel.resize(output_wh, Image.Resampling.BILINEAR, box=box))


def smaller(picture: Picture, longest_side: int) -> Picture:
    """The picture with no side longer than that, its aspect ratio kept."""
    height, width = picture_hw(picture)
    scale = longest_side / max(height, width)
    if scale >= 1:
        return picture
    output_hw = (max(1, round(height * scale)), max(1, round(width * scale)))
    pixels = resample(picture, (height, width), (0.0, 0.0, float(width), float(height)), output_hw)
    return Image.fromarray(pixels) if isinstance(picture, Image.Image) else pixels


def _by_channel(pixels: Pixels, change: Callable[[Image.Image], Image.Image]) -> Pixels:
    """Each channel as a picture of its own: more than four have no mode in Pillow, and an alpha would weigh the others.

    8 bits are computed with as in RGB; more as floating-point numbers, whose 24 bits are enough for 16.
    """
    mode = np.uint8 if pixels.dtype == np.uint8 else np.float32
    channels = [
        np.asarray(change(Image.fromarray(np.ascontiguousarray(pixels[..., channel], dtype=mode))))
        for channel in range(pixels.shape[2])
    ]
    result = np.stack(channels, axis=2)
    return np.rint(result).astype(np.uint16) if pixels.dtype == np.uint16 else result
