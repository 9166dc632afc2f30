"""Pixels as arrays [H, W, C] of uint8, uint16 or float32 in [0, 1]: their range, channels and orientation."""

from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Shaped

from rfdetr.errors import ImageError

Pixels: TypeAlias = Shaped[np.ndarray, "height width channels"]

# Computed values overshoot [0, 1] by less than this.
ROUNDING = 1e-4
# Of red, green and blue in grey, times 2^16 (ITU-R BT.601; as Pillow computes it).
LUMA = (19595, 38470, 7471)


def largest_value(dtype: np.dtype[Any]) -> float:
    """White in pixels of this type."""
    return {np.dtype(np.uint8): 255.0, np.dtype(np.uint16): 65535.0}.get(dtype, 1.0)


def of_one_type(*pictures: Pixels) -> tuple[Pixels, ...]:
    """As they are if they have the same type; else as float32 in [0, 1], in which all types have their place."""
    if len({pixels.dtype for pixels in pictures}) == 1:
        return pictures
    return tuple(
        (pixels / np.float32(largest_value(pixels.dtype))).astype(np.float32, copy=False) for pixels in pictures
    )


def in_known_range(pixels: Shaped[np.ndarray, "..."]) -> Shaped[np.ndarray, "..."]:
    """Numbers of any type as uint8, uint16 or float32 in [0, 1], without loss of bits.

    Integers of other types are taken for 8 bits where none exceeds 255, else for 16.

    Raises:
        ImageError: the range of the numbers is not known, or too large.
    """
    if pixels.dtype.kind == "u" and pixels.dtype.itemsize <= 2:
        in_native_order: Pixels = pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
        return in_native_order
    if pixels.dtype == np.bool_:
        return (pixels * 255).astype(np.uint8)
    if pixels.dtype.kind not in "iuf" or not pixels.size:
        raise ImageError(f"has no pixels that are numbers (type {pixels.dtype}, shape {pixels.shape})")
    low, high = pixels.min(), pixels.max()
    if pixels.dtype.kind == "f":
        if not (low >= -ROUNDING and high <= 1 + ROUNDING):  # NaN fails both
            raise ImageError(
                f"its pixels are floating-point numbers from {low:.4g} to {high:.4g}; allowed: 0 to 1. "
                "Divide them by the range of all pictures, or save them as 16-bit integers"
            )
        return pixels.astype(np.float32).clip(0, 1)
    if low < 0 or high > 65535:
        raise ImageError(
            f"its pixels are integers from {low} to {high}; allowed: 0 to 65535 (16 bits). "
            "Save them as 16-bit integers, or as floating-point numbers from 0 to 1"
        )
    return pixels.astype(np.uint8 if high <= 255 else np.uint16)


def to_channels(pixels: Pixels, num_channels: int) -> Pixels:
    """Grey, grey with alpha, RGB and RGBA into each other; other numbers of channels stay as they are.

    Raises:
        ImageError: there are others than wanted.
    """
    given = pixels.shape[2]
    if given == num_channels:
        return pixels
    check_channels(given, num_channels)
    colour, alpha = (pixels[..., :1], pixels[..., 1:]) if given < 3 else (pixels[..., :3], pixels[..., 3:])
    if num_channels < 3 <= given:
        colour = _grey(colour)
    elif given < 3 <= num_channels:
        colour = colour.repeat(3, axis=2)
    if num_channels in (1, 3):
        return colour
    if not alpha.shape[2]:
        alpha = np.full((*pixels.shape[:2], 1), largest_value(pixels.dtype), pixels.dtype)
    return np.concatenate([colour, alpha], axis=2)


def check_channels(given: int, num_channels: int) -> None:
    """Raises:
    ImageError: pictures with the given ones cannot have `num_channels`.
    """
    if given != num_channels and max(given, num_channels) > 4:
        raise ImageError(f"has {given} channels, the model takes {num_channels} (num_channels)")


def _grey(rgb: Pixels) -> Pixels:
    if rgb.dtype == np.float32:
        grey: Pixels = (rgb @ (np.array(LUMA, np.float32) / 65536))[..., None]
        return grey
    weighted = rgb.astype(np.uint32) * np.array(LUMA, np.uint32)
    grey = (weighted.sum(axis=2, dtype=np.uint32, keepdims=True) + 32768) >> 16
    return grey.astype(rgb.dtype)


def turned(pixels: Pixels, orientation: int) -> Pixels:
    """Upright, where EXIF says that it is stored in this orientation (1 to 8; 1 is upright)."""
    if orientation in (5, 6, 7, 8):  # mirrored along the diagonal, then as 1, 2, 3, 4
        pixels = pixels.swapaxes(0, 1)
    rows, columns = _STEPS.get(orientation, (1, 1))
    return pixels[::rows, ::columns]


_STEPS = {2: (1, -1), 3: (-1, -1), 4: (-1, 1), 6: (1, -1), 7: (-1, -1), 8: (-1, 1)}
