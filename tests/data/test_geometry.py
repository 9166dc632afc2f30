import math
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from rfdetr.config.recipes import Recipe
from rfdetr.data.annotations import Objects
from rfdetr.data.geometry import IDENTITY, Geometry, draw_geometry, render, whole_image
from rfdetr.data.resampling import reduce
from rfdetr.data.scenes import Source

from .drawn import NOTHING, color_numbers, corners_of, drawn, sampled, seen_near

OPTIONS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "the default": {"horizontal_flip": 0.5, "crop": 0.5},
    "flips and quarter turns": {"horizontal_flip": 0.5, "vertical_flip": 0.5, "rotate90": 0.75},
    "scale": {"scale": 0.5},
    "translate": {"translate": 0.4},
    "degrees": {"degrees": 180.0},
    "shear": {"shear": 25.0},
    "all": {
        "horizontal_flip": 0.5,
        "vertical_flip": 0.5,
        "rotate90": 0.5,
        "crop": 0.3,
        "degrees": 30.0,
        "scale": 0.3,
        "translate": 0.2,
        "shear": 10.0,
    },
}
each_option = pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)


@each_option
@pytest.mark.parametrize("form", ["polygons", "code"])
def test_boxes_and_masks_stay_on_their_pixels(options: dict[str, Any], form: str) -> None:
    found = 0
    for seed in range(12):
        scene = sampled(seed, form=form, recipe=replace(NOTHING, **options))
        numbers = color_numbers(scene.pixels)
        assert scene.masks is not None
        for label, corners, mask in zip(scene.labels, corners_of(scene), scene.masks, strict=True):
            measured = seen_near(numbers, label, corners)
            if measured is None or (measured[2:] - measured[:2]).min() < 3:
                assert (corners[2:] - corners[:2]).min() < 4  # a sliver
                continue
            # A crop keeps what it shows of the box; after other maps the box is around what is seen of the outline.
            is_cut = corners.min() < 0.5 or corners.max() > 159.5
            if not (is_cut and set(options) & {"crop", "scale", "translate"}):
                np.testing.assert_allclose(measured, corners, atol=2)
            else:
                assert (measured[:2] > corners[:2] - 2).all()
                assert (measured[2:] < corners[2:] + 2).all()
            seen = numbers == label
            assert (seen & mask).sum() > 0.93 * (seen | mask).sum()
            found += 1
    assert found > 12


@each_option
def test_no_object_that_is_seen_lacks_its_box(options: dict[str, Any]) -> None:
    for seed in range(12):
        scene = sampled(seed, form="none", recipe=replace(NOTHING, **options))
        numbers = color_numbers(scene.pixels)
        rest = numbers.copy()
        for label, (x1, y1, x2, y2) in zip(scene.labels, corners_of(scene), strict=True):
            window = rest[max(0, int(y1) - 2) : int(y2) + 3, max(0, int(x1) - 2) : int(x2) + 3]
            window[window == label] = -1
        border = np.ones_like(rest, dtype=bool)
        border[24:-24, 24:-24] = False
        assert not (rest[~border] != -1).any()  # what is left are corners of objects at the border


def test_a_turned_box_without_outline_holds_the_turned_object() -> None:
    for seed in range(20):
        loose = sampled(seed, form="none", recipe=replace(NOTHING, degrees=45.0))
        tight = sampled(seed, form="polygons", recipe=replace(NOTHING, degrees=45.0))
        if len(loose.labels) == len(tight.labels):
            x1, y1, x2, y2 = (corners_of(loose) - corners_of(tight)).T
            assert max(x1.max(), y1.max(), -x2.min(), -y2.min()) < 1


def test_turning_keeps_the_shape_of_objects_in_pictures_that_are_not_square() -> None:
    pixels = np.zeros((100, 300, 3), dtype=np.uint8)
    pixels[20:80, 120:180] = 255
    angle = math.radians(45)
    turned = (math.cos(angle), -math.sin(angle), math.sin(angle), math.cos(angle))
    objects = Objects(np.array([[120, 20, 180, 80]], np.float32), np.array([0]), None)
    geometry = replace(whole_image((100, 300)), turned=turned, is_moved=True)
    scene = render(Source(pixels, objects, (100, 300)), geometry, (100, 300))
    rows, columns = np.nonzero(scene.pixels[..., 0] > 127)
    assert columns.max() - columns.min() == pytest.approx(60 * math.sqrt(2), abs=2)
    assert rows.max() - rows.min() == pytest.approx(60 * math.sqrt(2), abs=2)


@pytest.mark.parametrize(("turned", "visible"), [(IDENTITY, 0.3), (IDENTITY, 0.05), ((1.0, 0.001, -0.001, 1.0), 0.04)])
def test_an_object_of_which_too_little_is_left_goes_unless_it_was_only_cropped(turned: Any, visible: float) -> None:
    objects = Objects(np.array([[0, 50, 40, 90]], np.float32), np.array([3]), None)
    source = Source(np.zeros((200, 200, 3), np.uint8), objects, (200, 200))
    left = 40 * (1 - visible)
    moved = Geometry((left, 0.0, left + 160, 160.0), turned=turned, is_moved=True)
    assert len(render(source, moved, (64, 64)).labels) == (visible > 0.1)
    if turned == IDENTITY:
        assert len(render(source, replace(moved, is_moved=False), (64, 64)).labels) == 1


def test_beyond_the_image_is_its_mean_color() -> None:
    source = drawn(3, "none")
    white = Source(np.full((50, 80, 3), 200, np.uint8), source.objects, (50, 80))
    for geometry in (
        Geometry((-40.0, -25.0, 120.0, 75.0)),
        Geometry((500.0, 0.0, 600.0, 50.0)),
        Geometry((-40.0, -25.0, 120.0, 75.0), turned=(0.8, -0.6, 0.6, 0.8)),
    ):
        pixels = render(white, geometry, (64, 64)).pixels
        assert (pixels == 200).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("turned", [IDENTITY, (0.8, -0.6, 0.6, 0.8)], ids=["straight", "turned"])
def test_pictures_of_any_depth_and_channels(dtype: Any, turned: Any) -> None:
    source = drawn(3)
    white = {np.uint8: 1, np.uint16: 257, np.float32: 1 / 255}[dtype]
    deep = (source.picture[..., [0, 1, 2, 0, 1]] * np.float64(white)).astype(dtype)
    geometry = Geometry((-20.0, 10.0, 150.0, 180.0), flip=True, turned=turned)
    rgb = render(source, geometry, (96, 96)).pixels.astype(np.float64)
    pixels = render(replace(source, picture=deep), geometry, (96, 96)).pixels
    assert pixels.shape == (96, 96, 5)
    assert pixels.dtype == dtype
    np.testing.assert_allclose(pixels / white, rgb[..., [0, 1, 2, 0, 1]], atol=1.6)


def test_a_picture_decoded_at_reduced_scale_has_the_same_boxes_and_masks() -> None:
    source = drawn(3)
    half = replace(source, picture=reduce(source.picture, 2))
    geometry = Geometry((-20.0, 10.0, 150.0, 180.0), turned=(0.8, -0.6, 0.6, 0.8))
    whole, reduced = render(source, geometry, (64, 64)), render(half, geometry, (64, 64))
    np.testing.assert_array_equal(whole.boxes, reduced.boxes)
    np.testing.assert_array_equal(whole.masks, reduced.masks)
    assert np.abs(whole.pixels.astype(int) - reduced.pixels).mean() < 4


@pytest.mark.parametrize(
    ("option", "shares"),
    [
        ({"horizontal_flip": 0.3}, {"flip": 0.3}),
        ({"vertical_flip": 0.3}, {"flip_vertical": 0.3}),
        ({"rotate90": 0.6}, {"transpose": 0.4, "flip": 0.4, "flip_vertical": 0.4}),
        ({"degrees": 10.0, "affine": 0.3}, {"is_moved": 0.3}),
    ],
)
def test_chances_are_how_often(option: dict[str, Any], shares: dict[str, float]) -> None:
    rng = np.random.default_rng(0)
    drawn_ones = [draw_geometry(rng, (480, 640), replace(NOTHING, **option)) for _ in range(600)]
    for name in ("flip", "flip_vertical", "transpose", "is_moved"):
        share = sum(getattr(geometry, name) for geometry in drawn_ones) / 600
        assert share == pytest.approx(shares.get(name, 0), abs=0.06 if name in shares else 0)


@pytest.mark.parametrize(
    ("option", "amount"),
    [({"degrees": 30.0}, 30), ({"scale": 0.4}, 0.4), ({"translate": 0.2}, 0.2), ({"shear": 20.0}, 20)],
    ids=["degrees", "scale", "translate", "shear"],
)
def test_amounts_are_the_most_either_way(option: dict[str, Any], amount: float) -> None:
    rng = np.random.default_rng(0)
    found = [
        amount_of(draw_geometry(rng, (100, 200), replace(NOTHING, **option)), next(iter(option))) for _ in range(300)
    ]
    assert -amount <= min(found) < -0.9 * amount
    assert 0.9 * amount < max(found) <= amount * 1.0001


def amount_of(geometry: Geometry, option: str) -> float:
    x1, _, x2, _ = geometry.crop_xyxy
    a, b, c, _ = geometry.turned
    return {
        "degrees": math.degrees(math.atan2(c, a)),
        "scale": 200 / (x2 - x1) - 1,
        "translate": (100 - (x1 + x2) / 2) / 200,
        "shear": math.degrees(math.atan(b)),
    }[option]


def test_further_options_do_not_change_the_crops() -> None:
    further = Recipe(vertical_flip=0.5, rotate90=0.5, degrees=5.0, affine=0.0)
    plain, more = (
        [draw_geometry(np.random.default_rng(seed), (480, 640), recipe).crop_xyxy for seed in range(50)]
        for recipe in (Recipe(), further)
    )
    assert plain == more


@pytest.mark.parametrize(
    "size_hw",
    [(480, 640), (640, 480), (500, 500), (1, 1), (1, 3000), (777, 1333)],
    ids=lambda size_hw: f"{size_hw[0]}x{size_hw[1]}",
)
def test_a_crop_is_a_square_in_the_image_of_64_to_100_percent_of_its_shorter_side(size_hw: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    height, width = size_hw
    sides = []
    for _ in range(400):
        x1, y1, x2, y2 = draw_geometry(rng, size_hw, Recipe()).crop_xyxy
        assert 0 <= x1 < x2 <= width
        assert 0 <= y1 < y2 <= height
        if (x1, y1, x2, y2) != (0, 0, width, height):
            assert x2 - x1 == pytest.approx(y2 - y1)
            sides.append((x2 - x1) / min(size_hw))
    if size_hw == (480, 640):
        assert min(sides) == pytest.approx(384 / 600, abs=0.03)
        assert max(sides) == pytest.approx(1, abs=0.03)


def test_by_default_half_of_the_samples_are_cropped_and_half_mirrored() -> None:
    rng = np.random.default_rng(0)
    drawn_ones = Counter(
        (geometry.crop_xyxy == (0, 0, 640, 480), geometry.flip)
        for geometry in (draw_geometry(rng, (480, 640), Recipe()) for _ in range(2000))
    )
    assert len(drawn_ones) == 4
    assert all(count == pytest.approx(500, abs=80) for count in drawn_ones.values())
