import colorsys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from rfdetr.data.colour import LUMA, blended, blurred, finish, noisy, recolored, rescaled

from .drawn import COLORS, NOTHING, drawn, sampled

PIXELS = np.random.default_rng(0).integers(60, 190, (48, 64, 3), dtype=np.uint8)
DEEP = np.random.default_rng(0).integers(15000, 48000, (48, 64, 5), dtype=np.uint16)


def test_without_options_nothing_changes() -> None:
    assert finish(PIXELS, np.random.default_rng(0), NOTHING) is PIXELS


def test_brightness_is_a_factor() -> None:
    np.testing.assert_allclose(recolored(PIXELS, 1.3, 1, 1, 0), PIXELS * 1.3, atol=0.51)
    np.testing.assert_allclose(rescaled(DEEP, 1.3, 1), DEEP * 1.3, atol=0.51)


def test_contrast_is_a_factor_about_the_mean() -> None:
    gray = (PIXELS[::4, ::4].reshape(-1, 3) @ LUMA).mean()
    np.testing.assert_allclose(recolored(PIXELS, 1, 0.5, 1, 0), (PIXELS - gray) * 0.5 + gray, atol=0.51)
    assert rescaled(DEEP, 1, 0.5).std() == pytest.approx(DEEP.std() / 2, rel=0.01)
    assert rescaled(DEEP, 1, 0.5).mean() == pytest.approx(DEEP.mean(), rel=0.01)


def test_saturation_is_a_factor_of_the_distance_from_grey() -> None:
    gray = (PIXELS @ LUMA)[..., None]
    np.testing.assert_allclose(recolored(PIXELS, 1, 1, 0.5, 0), (PIXELS + gray) / 2, atol=0.51)


@pytest.mark.parametrize("turn", [-0.1, 0.1, 0.4])
def test_hue_turns_colors_and_leaves_greys_and_brightness(turn: float) -> None:
    soft = np.array([[[140, 120, 120], [120, 140, 120], [120, 120, 140], [128, 128, 128]]], dtype=np.uint8)
    turned = recolored(soft, 1, 1, 1, turn)
    assert turned[0, 3].tolist() == [128, 128, 128]
    np.testing.assert_allclose(turned @ LUMA, soft @ LUMA, atol=1)
    for before, after in zip(soft[0, :3] / 255, turned[0, :3] / 255, strict=True):
        moved = (colorsys.rgb_to_hsv(*after)[0] - colorsys.rgb_to_hsv(*before)[0] + 0.5) % 1 - 0.5
        assert moved == pytest.approx(turn, abs=0.06)  # the circles differ a little


def test_all_changes_of_color_are_one_after_another() -> None:
    steps = recolored(recolored(recolored(recolored(PIXELS, 1.1, 1, 1, 0), 1, 0.8, 1, 0), 1, 1, 1.2, 0), 1, 1, 1, 0.05)
    np.testing.assert_allclose(recolored(PIXELS, 1.1, 0.8, 1.2, 0.05), steps, atol=3)


def test_a_blur_smoothes_and_keeps_the_mean() -> None:
    for pixels in (PIXELS, DEEP):
        smooth = blurred(pixels, 2.0)
        assert smooth.dtype == pixels.dtype
        assert smooth.std() < pixels.std() / 3
        assert smooth.mean() == pytest.approx(pixels.mean(), rel=0.01)
    assert (blurred(np.full_like(DEEP, 7), 2.0) == 7).all()
    assert (
        np.ptp(blurred(np.arange(5, dtype=np.uint16)[None, None].repeat(9, 0).repeat(9, 1), 2.0), axis=2) == 4
    ).all()


@pytest.mark.parametrize("pixels", [PIXELS, DEEP, (DEEP / np.float32(65535)).astype(np.float32)], ids=lambda p: p.dtype)
def test_noise_is_as_strong_as_it_says(pixels: np.ndarray) -> None:
    grainy = noisy(pixels, 0.02, np.random.default_rng(0))
    assert grainy.dtype == pixels.dtype
    white = {"u1": 255, "u2": 65535, "f4": 1}[pixels.dtype.str[1:]]
    assert (grainy.astype(float) - pixels).std() / white == pytest.approx(0.02, rel=0.05)


def test_values_stay_in_their_range() -> None:
    assert noisy(np.full((9, 9, 3), 255, np.uint8), 0.5, np.random.default_rng(0)).max() == 255
    assert rescaled(np.full((9, 9, 1), 65000, np.uint16), 2, 1).max() == 65535
    assert blended(PIXELS, PIXELS, 0.37).tolist() == PIXELS.tolist()


# What each option changes in a grey and in a colored picture, in the mean over pixels.
@pytest.mark.parametrize(
    ("option", "changes_grey"),
    [
        ({"brightness": 0.3}, True),
        ({"contrast": 0.3}, True),
        ({"saturation": 0.5}, False),
        ({"hue": 0.5}, False),
        ({"grayscale": 1.0}, False),
        ({"blur": 1.0}, True),
        ({"noise": 1.0}, True),
    ],
    ids=lambda option: next(iter(option)) if isinstance(option, dict) else "",
)
def test_an_option_changes_what_it_says(option: dict[str, Any], changes_grey: bool) -> None:
    recipe = replace(NOTHING, **option)
    grey = np.repeat(PIXELS[..., :1], 3, axis=2)
    changed = [finish(grey, np.random.default_rng(seed), recipe).astype(int) for seed in range(9)]
    spread = max(np.abs(pixels - grey).mean() for pixels in changed)
    assert spread > 4 if changes_grey else spread < 0.6
    colored = [finish(PIXELS, np.random.default_rng(seed), recipe).astype(int) for seed in range(9)]
    assert max(np.abs(pixels - PIXELS).mean() for pixels in colored) > 4


def test_color_jitter_is_the_chance_of_the_four_changes_of_color() -> None:
    recipe = replace(NOTHING, brightness=0.3, color_jitter=0.3)
    same = [finish(PIXELS, np.random.default_rng(seed), recipe) is PIXELS for seed in range(300)]
    assert sum(same) / 300 == pytest.approx(0.7, abs=0.07)


def test_grey_is_the_brightness_of_the_color() -> None:
    pixels = sampled(3, recipe=replace(NOTHING, grayscale=1.0)).pixels
    assert (np.ptp(pixels, axis=2) == 0).all()
    label = drawn(30).objects.labels[0]
    assert round(float(COLORS[label] @ LUMA)) in pixels
