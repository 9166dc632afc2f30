from typing import Any

import numpy as np
import pytest
from PIL import Image

from rfdetr.data.resampling import Region, nearest_region, reduce, reduced_hw, reduction, resample
from rfdetr.data.vector_resampling import resample_region

RNG = np.random.default_rng(0)
COARSE = Image.fromarray(RNG.integers(0, 256, (9, 12, 3), dtype=np.uint8))
IMAGE = COARSE.resize((331, 247), Image.Resampling.BICUBIC)
PICTURE = np.asarray(IMAGE)
HW = (247, 331)
CROP = (20.25, 13.5, 300.75, 240.0)


def difference(one: Any, other: Any) -> float:
    return float(np.abs(one.astype(np.float64) - other.astype(np.float64)).max())


def test_rgb_is_what_pillow_makes_of_the_region() -> None:
    expected = IMAGE.resize((64, 48), Image.Resampling.BILINEAR, box=CROP)
    assert (resample(PICTURE, HW, CROP, (48, 64)) == np.asarray(expected)).all()


def test_an_array_of_eight_bits_is_resampled_as_rgb_is() -> None:
    expected = resample(PICTURE, HW, CROP, (48, 64))
    found = resample(PICTURE[..., [0, 1, 2, 0, 1]], HW, CROP, (48, 64))
    assert (found == expected[..., [0, 1, 2, 0, 1]]).all()


@pytest.mark.parametrize("region", [(0, 0, 331, 247), (20, 13, 300, 240), (5, 40, 25, 52)])
@pytest.mark.parametrize("channels", [[0], [0, 1, 2], [0, 1, 2, 0], [0, 1, 2, 0, 1]])
def test_a_region_of_whole_pixels_is_what_pillow_makes_of_it_to_within_a_level(
    region: Region, channels: list[int]
) -> None:
    """Grown and shrunk, and in memory that cannot be written to."""
    expected = np.asarray(IMAGE.crop(region).resize((64, 48), Image.Resampling.BILINEAR))
    found = resample_region(PICTURE[..., channels], region, (48, 64))
    assert found.dtype == np.uint8
    assert difference(found, expected[..., channels]) <= 1
    assert np.abs(found.astype(int) - expected[..., channels]).mean() < 0.05


def test_a_region_of_a_deep_picture_keeps_all_bits() -> None:
    deep = PICTURE.astype(np.float32) / 255
    cut = deep[13:240, 20:300]
    expected = resample(cut, (227, 280), (0.0, 0.0, 280.0, 227.0), (48, 64))
    assert (resample_region(deep, (20, 13, 300, 240), (48, 64)) == expected).all()


@pytest.mark.parametrize(
    ("factor", "crop", "region", "moved"),
    [
        pytest.param(1, (20.25, 13.5, 300.75, 240.0), (20, 14, 301, 240), (20, 14, 301, 240), id="nearest"),
        pytest.param(2, (21.0, 14.0, 300.75, 239.0), (10, 7, 150, 120), (20, 14, 300, 240), id="of a reduced one"),
        pytest.param(4, (0.0, 0.0, 331.0, 247.0), (0, 0, 83, 62), (0, 0, 331, 247), id="its edges are kept"),
        pytest.param(8, (330.0, 246.0, 330.5, 246.5), (41, 30, 42, 31), (328, 240, 331, 247), id="at least one pixel"),
    ],
)
def test_a_region_moves_to_whole_pixels(factor: int, crop: Any, region: Any, moved: Any) -> None:
    assert nearest_region(reduce(PICTURE, factor), HW, crop) == (region, moved)


@pytest.mark.parametrize("kind", [np.uint16, np.float32])
def test_no_bit_is_lost(kind: type) -> None:
    """At the same size every value stays; at another one they are those of a computation with 64 bits."""
    values = RNG.integers(0, 65536, (24, 36, 2)).astype(kind) / (1 if kind is np.uint16 else 65535)
    pixels: Any = values.astype(kind)
    whole = (0.0, 0.0, 36.0, 24.0)
    same = resample(pixels, (24, 36), whole, (24, 36))
    assert same.dtype == kind
    assert (same == pixels).all()
    halves = pixels.astype(np.float64).reshape(12, 2, 18, 2, 2).mean(axis=(1, 3))
    reduced = reduce(pixels, 2)
    assert isinstance(reduced, np.ndarray)
    assert reduced.dtype == kind
    assert difference(reduced, halves) <= (0.5 if kind is np.uint16 else 1e-7)


@pytest.mark.parametrize("factor", [2, 4, 8])
@pytest.mark.parametrize("crop", [(0.0, 0.0, 331.0, 247.0), CROP, (250.0, 180.0, 331.0, 247.0)])
def test_a_reduced_picture_shows_the_same_region(factor: int, crop: tuple[float, float, float, float]) -> None:
    """331 and 247 are not multiples: the last pixels stand for less, and a scale of 332 : 166 would be off."""
    ramp = np.mgrid[0:247, 0:331].transpose(1, 2, 0).astype(np.float32)
    reduced = reduce(ramp, factor)
    found = resample(reduced, HW, crop, (10, 12))
    expected = resample(ramp, HW, crop, (10, 12))
    inner = (slice(1, -1), slice(1, -1))
    assert difference(found[inner], expected[inner]) < 0.35 * factor


def test_the_factor_leaves_the_shorter_side_long_enough() -> None:
    assert [reduction((1500, 2000), side) for side in (None, 751, 750, 376, 375, 188, 187, 1)] == [
        1,
        1,
        2,
        2,
        4,
        4,
        8,
        8,
    ]
    assert reduction((1501, 600), 600) == 1
    assert reduced_hw((1501, 2000), 4) == (376, 500)
