"""What augmentation does to colours, sharpness and noise: on the small picture, all changes of colour as one matrix."""

import math
from typing import Any

import numpy as np
from jaxtyping import Float64
from PIL import Image, ImageFilter

from rfdetr.config.recipes import Recipe
from rfdetr.data.channels import Pixels, largest_value

# Standard deviations: of the blur in pixels of the input, of the noise as a fraction of the range of values.
BLUR_SIGMA = (0.1, 2.0)
MOST_NOISE = 0.06

_OPTIONS = ("brightness", "contrast", "saturation", "hue", "grayscale", "blur", "noise")

LUMA = np.array([0.299, 0.587, 0.114])
TO_YIQ = np.array([LUMA, [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])


def finish(pixels: Pixels, rng: np.random.Generator, recipe: Recipe) -> Pixels:
    """Other colours, a blur, noise, or none of them."""
    if not any(getattr(recipe, name) for name in _OPTIONS):
        return pixels
    is_rgb = pixels.dtype == np.uint8 and pixels.shape[2] == 3
    jitter, others = rng.spawn(2)
    brightness, contrast, saturation, hue = _draw_jitter(jitter, recipe)
    is_gray = others.random() < recipe.grayscale
    if is_rgb:
        pixels = recolored(pixels, brightness, contrast, 0.0 if is_gray else saturation, hue)
    else:
        pixels = rescaled(pixels, brightness, contrast)
    if others.random() < recipe.blur:
        pixels = blurred(pixels, others.uniform(*BLUR_SIGMA))
    if others.random() < recipe.noise:
        pixels = noisy(pixels, others.uniform(0, MOST_NOISE), others)
    return pixels


def _draw_jitter(rng: np.random.Generator, recipe: Recipe) -> tuple[float, float, float, float]:
    """Factors for brightness, contrast and saturation, and a part of the colour circle."""
    if rng.random() >= recipe.color_jitter:
        return 1.0, 1.0, 1.0, 0.0
    most = (recipe.brightness, recipe.contrast, recipe.saturation)
    brightness, contrast, saturation = (rng.uniform(max(0.0, 1 - amount), 1 + amount) for amount in most)
    return brightness, contrast, saturation, rng.uniform(-recipe.hue, recipe.hue)


def recolored(pixels: Pixels, brightness: float, contrast: float, saturation: float, hue: float) -> Pixels:
    """8-bit RGB with these factors (contrast about the mean brightness), its hues turned by a part of the circle."""
    if (brightness, contrast, saturation, hue) == (1.0, 1.0, 1.0, 0.0):
        return pixels
    gray = float(pixels[::4, ::4].reshape(-1, 3).mean(axis=0) @ LUMA) * brightness
    linear = _turned_hues(hue) @ _saturated(saturation) * (brightness * contrast)
    # Neither saturation nor hue changes a grey.
    matrix = np.concatenate([linear, np.full((3, 1), gray * (1 - contrast))], axis=1)
    image = Image.fromarray(np.ascontiguousarray(pixels))
    return np.asarray(image.convert("RGB", tuple(matrix.ravel().tolist())))


def _saturated(factor: float) -> Float64[np.ndarray, "3 3"]:
    matrix: Float64[np.ndarray, "3 3"] = factor * np.eye(3) + (1 - factor) * np.tile(LUMA, (3, 1))
    return matrix


def _turned_hues(turn: float) -> Float64[np.ndarray, "3 3"]:
    """A rotation about the grey axis of YIQ."""
    cos, sin = math.cos(2 * math.pi * turn), math.sin(2 * math.pi * turn)
    rotation = np.array([[1, 0, 0], [0, cos, sin], [0, -sin, cos]])  # in the direction of HSV's circle
    matrix: Float64[np.ndarray, "3 3"] = np.linalg.inv(TO_YIQ) @ rotation @ TO_YIQ
    return matrix


def rescaled(pixels: Pixels, brightness: float, contrast: float) -> Pixels:
    """Any channels: brightness and contrast, the latter about the mean of each channel. Hue means nothing here."""
    if (brightness, contrast) == (1.0, 1.0):
        return pixels
    means = pixels[::4, ::4].mean(axis=(0, 1), dtype=np.float32)
    return _as(pixels.dtype, (pixels - means) * np.float32(brightness * contrast) + means * np.float32(brightness))


def blurred(pixels: Pixels, sigma: float) -> Pixels:
    if pixels.dtype == np.uint8 and pixels.shape[2] == 3:
        return np.asarray(Image.fromarray(np.ascontiguousarray(pixels)).filter(ImageFilter.GaussianBlur(sigma)))
    from scipy.ndimage import gaussian_filter

    smooth: Pixels = gaussian_filter(pixels, (sigma, sigma, 0))
    return smooth


def noisy(pixels: Pixels, deviation: float, rng: np.random.Generator) -> Pixels:
    """Normal noise, independent in all channels; `deviation` is a fraction of the range of values."""
    noise = rng.standard_normal(pixels.shape, dtype=np.float32)
    return _as(pixels.dtype, pixels + noise * np.float32(deviation * largest_value(pixels.dtype)))


def blended(one: Pixels, other: Pixels, weight: float) -> Pixels:
    """The sum of one with this weight and the other with what is left of 1."""
    return _as(one.dtype, one * np.float32(weight) + other * np.float32(1 - weight))


def _as(dtype: np.dtype[Any], values: Pixels) -> Pixels:
    """Numbers of this kind, rounded where it has no fractions, and within its range."""
    within = values.clip(0, largest_value(dtype))
    return (within.round() if dtype.kind == "u" else within).astype(dtype)
