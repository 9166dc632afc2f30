from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from rfdetr.data.mixing import copy_paste, draw_tiles, mixup, mosaic
from rfdetr.data.scenes import Scene, bounds

from .drawn import NOTHING, color_numbers, corners_of, drawn, sampled, seen_near


def scene_of(color: int, *squares: tuple[int, int, int, int], label: int = 0) -> Scene:
    """A picture of one colour with squares (xyxy) of the next one."""
    pixels = np.full((40, 40, 3), color, dtype=np.uint8)
    masks = np.zeros((len(squares), 40, 40), dtype=np.bool_)
    for mask, (x1, y1, x2, y2) in zip(masks, squares, strict=True):
        mask[y1:y2, x1:x2] = True
        pixels[mask] = color + 1
    boxes = np.array([bounds(mask) for mask in masks], dtype=np.float32).reshape(-1, 4)
    return Scene(pixels, boxes, np.full(len(squares), label), masks)


@pytest.mark.parametrize("form", ["polygons", "code", "none"])
def test_in_a_mosaic_boxes_and_masks_stay_on_their_pixels(form: str) -> None:
    found = 0
    recipe = replace(NOTHING, mosaic=1.0, horizontal_flip=0.5, rotate90=0.5)
    for seed in range(8):
        scene = sampled(seed, size=320, form=form, recipe=recipe)
        numbers = color_numbers(scene.pixels)
        assert (scene.masks is None) == (form == "none")
        for row, (label, corners) in enumerate(zip(scene.labels, corners_of(scene), strict=True)):
            measured = seen_near(numbers, label, corners, margin=3)
            assert measured is not None
            if scene.masks is not None:
                x1, y1, x2, y2 = (int(side) for side in corners)
                seen, mask = (grid[y1:y2, x1:x2] for grid in (numbers == label, scene.masks[row]))
                assert (seen & mask).sum() > 0.85 * (seen | mask).sum()
                assert scene.masks[row].sum() <= mask.sum() + 2 * (x2 - x1 + y2 - y1 + 2)
            assert (measured[:2] > corners[:2] - 2).all()
            assert (measured[2:] < corners[2:] + 2).all()
            found += 1
    assert found > 25


def test_a_mosaic_is_of_four_pictures_and_fills_the_input() -> None:
    scene = sampled(1, recipe=replace(NOTHING, mosaic=1.0))
    assert scene.pixels.shape == (160, 160, 3)
    for seed in range(20):
        tiles = draw_tiles(np.random.default_rng(seed), 160)
        assert sum((right - left) * (bottom - top) for left, top, right, bottom in tiles) == 160 * 160
        assert min(min(right - left, bottom - top) for left, top, right, bottom in tiles) >= 0.35 * 160


def test_a_mosaic_does_not_squeeze_objects() -> None:
    """A part of a picture is as high and wide as its tile, so its scale is that of a whole one, or half of it."""
    source = drawn(3)
    widths = [
        scene.boxes[:, 2] / scene.boxes[:, 3]
        for seed in range(10)
        for scene in [sampled(seed, recipe=replace(NOTHING, mosaic=1.0), load=lambda _: source)]
    ]
    expected = sampled(0, load=lambda _: source).boxes
    assert np.median(np.concatenate(widths)) == pytest.approx(np.median(expected[:, 2] / expected[:, 3]), rel=0.5)


def test_mixup_shows_both_pictures_and_keeps_the_objects_of_both() -> None:
    scene = mixup(scene_of(0, (0, 0, 10, 10)), scene_of(200, (5, 5, 30, 20), label=3), np.random.default_rng(0))
    assert 60 < scene.pixels[30, 30, 0] < 140
    assert scene.labels.tolist() == [0, 3]
    assert corners_of(scene).tolist() == [[0, 0, 10, 10], [5, 5, 30, 20]]
    assert scene.masks is not None
    assert scene.masks.sum(axis=(1, 2)).tolist() == [100, 375]


def pasted(scene: Scene, other: Scene) -> Scene:
    """With all objects of the other one."""
    return next(
        made
        for seed in range(99)
        for made in [copy_paste(scene, other, np.random.default_rng(seed))]
        if len(other.labels) <= (made.labels == 3).sum()
    )


def test_a_pasted_object_hides_what_is_behind_it() -> None:
    before = scene_of(10, (0, 0, 20, 20), (30, 30, 40, 40), (6, 6, 8, 8), (12, 0, 32, 10))
    scene = pasted(before, scene_of(100, (5, 5, 25, 35), label=3))
    assert scene.labels.tolist() == [0, 0, 0, 3]  # one is hidden
    assert corners_of(scene).tolist() == [[0, 0, 20, 20], [30, 30, 40, 40], [12, 0, 32, 10], [5, 5, 25, 35]]
    assert scene.masks is not None
    assert scene.masks.sum(axis=(1, 2)).tolist() == [400 - 225, 100, 200 - 65, 600]
    assert (scene.pixels[5:35, 5:25] == 101).all()
    assert scene.pixels[2, 2, 0] == 11


def test_the_box_of_a_half_hidden_object_is_around_what_is_left_of_it() -> None:
    scene = pasted(scene_of(10, (0, 0, 20, 20)), scene_of(100, (0, 8, 40, 40), label=3))
    assert corners_of(scene).tolist() == [[0, 0, 20, 8], [0, 8, 40, 40]]


def test_an_object_goes_when_less_than_a_tenth_of_it_is_left() -> None:
    scene = pasted(
        scene_of(10, (0, 0, 20, 20), (20, 0, 40, 20)), scene_of(100, (0, 0, 19, 20), (20, 0, 37, 20), label=3)
    )
    assert scene.labels.tolist() == [0, 3, 3]
    assert corners_of(scene)[0].tolist() == [37, 0, 40, 20]


def test_about_half_of_the_objects_are_pasted() -> None:
    other = scene_of(100, *[(x, 0, x + 2, 2) for x in range(0, 40, 4)], label=3)
    counts = [len(copy_paste(scene_of(0), other, np.random.default_rng(seed)).labels) for seed in range(50)]
    assert np.mean(counts) == pytest.approx(5, abs=0.8)


def test_without_masks_nothing_is_pasted() -> None:
    recipe = replace(NOTHING, copy_paste=1.0)
    assert (sampled(0, form="none", recipe=recipe).pixels == sampled(0, form="none").pixels).all()


def test_after_copy_paste_boxes_and_masks_are_those_of_the_pixels() -> None:
    recipe = replace(NOTHING, copy_paste=1.0, horizontal_flip=0.5, vertical_flip=0.5, degrees=20.0)
    changed = 0
    for seed in range(12):
        scene, plain = sampled(seed, recipe=recipe), sampled(seed, recipe=replace(recipe, copy_paste=0.0))
        numbers = color_numbers(scene.pixels)
        assert scene.masks is not None
        changed += scene.pixels.tobytes() != plain.pixels.tobytes()
        assert scene.masks.sum(axis=0).max() <= 1 + (plain.masks is not None and plain.masks.sum(axis=0).max() > 1)
        for label, corners, mask in zip(scene.labels, corners_of(scene), scene.masks, strict=True):
            assert (numbers[mask] == label).mean() > 0.8
            np.testing.assert_allclose(bounds(mask) * 160, corners_to_center(corners), atol=2)
    assert changed > 6


def corners_to_center(corners: np.ndarray) -> np.ndarray:
    x1, y1, x2, y2 = corners
    return np.array([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1])


@pytest.mark.parametrize("mixed", [mixup, copy_paste])
def test_pictures_of_several_types_are_mixed_as_numbers(mixed: Callable[..., Scene]) -> None:
    """Of 8 and 16 bits, and in [0, 1]: the same grey is the same grey."""
    scene = scene_of(51, (5, 5, 20, 20), (22, 5, 30, 20), (5, 25, 20, 35), (25, 25, 35, 35))
    alike = replace(scene, pixels=scene.pixels.astype(np.uint16) * 257)
    numbers = replace(scene, pixels=scene.pixels.astype(np.float32) / 255)
    for other in (alike, numbers):
        found = mixed(scene, other, np.random.default_rng(0)).pixels
        assert found.dtype == np.float32
        assert np.allclose(found, numbers.pixels)


def test_a_mosaic_of_pictures_of_several_types_is_of_numbers() -> None:
    scene = scene_of(51)
    types = [scene.pixels, scene.pixels.astype(np.uint16) * 257, scene.pixels.astype(np.float32) / 255, scene.pixels]
    scenes = [replace(scene, pixels=pixels) for pixels in types]
    found = mosaic([(0, 0, 40, 40), (40, 0, 80, 40), (0, 40, 40, 80), (40, 40, 80, 80)], lambda n, _: scenes[n], 80)
    assert np.allclose(found.pixels, 0.2)
