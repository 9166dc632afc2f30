from dataclasses import replace
from itertools import compress
from typing import Any

import numpy as np
import pytest
from numpy.typing import ArrayLike
from PIL import Image

from rfdetr.config.recipes import RECIPES, Recipe
from rfdetr.config.runs import TrainConfig
from rfdetr.data.annotations import Objects
from rfdetr.data.channels import Pixels
from rfdetr.data.geometry import Geometry, render, whole_image
from rfdetr.data.preprocess import squeezed
from rfdetr.data.resampling import picture_hw
from rfdetr.data.scenes import Scene, Source
from rfdetr.masks import Segmentation, decode, to_rle

from .drawn import NOTHING, drawn, sampled

NOISE = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
BLACK = np.zeros((100, 100, 3), np.uint8)


def objects(boxes: ArrayLike, labels: list[int], segmentations: list[Segmentation] | None = None) -> Objects:
    return Objects(np.array(boxes, np.float32).reshape(-1, 4), np.array(labels, np.int64), segmentations)


def shown(picture: Pixels, there: Objects, region: tuple[float, float, float, float] | None, size: int) -> Scene:
    size_hw = picture_hw(picture)
    geometry = Geometry(region) if region else whole_image(size_hw)
    return render(Source(picture, there, size_hw), geometry, (size, size))


def at(option: str, value: float) -> dict[str, Any]:
    return {option: value}


def everything(scene: Scene) -> list[Any]:
    masks = None if scene.masks is None else scene.masks.tobytes()
    return [scene.pixels.tobytes(), scene.boxes.tolist(), scene.labels.tolist(), masks]


def test_without_augmentation_training_sees_what_evaluation_sees() -> None:
    scene = shown(NOISE, objects([[30, 45, 60, 90]], [1]), None, 64)
    """To within a level of brightness."""
    seen = squeezed(NOISE, 64).permute(1, 2, 0).numpy()
    assert np.abs(scene.pixels.astype(int) - seen).max() <= 1
    assert scene.boxes.tolist() == [[0.375, 0.75, 0.25, 0.5]]
    assert scene.masks is None


def test_the_default_recipe_makes_one_resize_of_a_region() -> None:
    """Crop, flip, boxes and masks as plain code makes them; pixels to within a level of brightness."""
    for seed in range(20):
        source = drawn(seed, "code")
        scene = sampled(seed, 96, recipe=Recipe(), load=lambda _, source=source: source)
        height, width = source.size_hw
        rng = np.random.default_rng([seed, 0, 0])
        flip, region = rng.random() < 0.5, (0.0, 0.0, float(width), float(height))
        if rng.random() < 0.5:
            short = int(rng.choice((400, 500, 600)))
            side = int(rng.integers(384, short, endpoint=True)) / short * min(height, width)
            left, top = rng.uniform(0, width - side), rng.uniform(0, height - side)
            region = (left, top, left + side, top + side)
        x1, y1, x2, y2 = (round(side) for side in region)
        cut = Image.fromarray(source.picture[y1:y2, x1:x2])
        resized = cut.resize((96, 96), Image.Resampling.BILINEAR)
        pixels = np.asarray(resized)[:, ::-1] if flip else np.asarray(resized)
        corners = ((source.objects.boxes - [x1, y1, x1, y1]) / [x2 - x1, y2 - y1, x2 - x1, y2 - y1]).clip(0, 1)
        kept = (corners[:, 2] > corners[:, 0]) & (corners[:, 3] > corners[:, 1])
        corners = corners[kept]
        middles = (corners[:, :2] + corners[:, 2:]) / 2
        if flip:
            middles[:, 0] = 1 - middles[:, 0]
        assert np.abs(scene.pixels.astype(int) - pixels).max() <= 1
        np.testing.assert_allclose(scene.boxes[:, :2], middles, atol=1e-6)
        np.testing.assert_allclose(scene.boxes[:, 2:], corners[:, 2:] - corners[:, :2], atol=1e-6)
        assert scene.labels.tolist() == list(compress(source.objects.labels, kept))


@pytest.mark.parametrize("form", ["polygons", "code"])
@pytest.mark.parametrize("seed", range(6))
def test_the_mask_of_a_large_object_is_that_of_its_pixels(seed: int, form: str) -> None:
    rng = np.random.default_rng(seed)
    height, width = (int(side) for side in rng.integers(100, 900, 2))
    angles = np.arange(12) * np.pi / 6
    unit = np.stack([np.cos(angles), np.sin(angles)], axis=1) * rng.uniform(0.6, 1, (12, 1))
    polygon = (unit + 1.1) * [width / 2.2, height / 2.2]
    code = to_rle([polygon], (height, width))
    picture = np.repeat(decode(code)[..., None], 3, axis=2).astype(np.uint8) * 255
    box = np.concatenate([polygon.min(axis=0), polygon.max(axis=0)])
    there = objects(box, [5], [[polygon] if form == "polygons" else code])
    scene = sampled(seed, 256, recipe=Recipe(), load=lambda _: Source(picture, there, (height, width)))
    assert scene.masks is not None
    white = (scene.pixels > 127).all(axis=2)
    assert (white & scene.masks[0]).sum() > 0.98 * (white | scene.masks[0]).sum()


def test_masks_go_with_their_boxes_which_stay_where_only_a_corner_of_them_is_seen() -> None:
    triangles: list[Segmentation] = [[np.array([[x, x], [x, x + 40.0], [x + 40, x + 40]])] for x in (0, 20, 60)]
    there = objects([[0, 0, 40, 40], [20, 20, 60, 60], [60, 60, 100, 100]], [1, 2, 3], triangles)
    scene = shown(BLACK, there, (45.0, 20.0, 85.0, 60.0), 40)
    assert scene.masks is not None
    assert scene.labels.tolist() == [2]
    assert scene.masks.shape == (1, 40, 40)
    assert not scene.masks[0, :24].any()
    scene = shown(BLACK, there, (45.0, 20.0, 65.0, 40.0), 40)
    assert scene.masks is not None
    assert scene.labels.tolist() == [2]
    assert not scene.masks.any()


@pytest.mark.parametrize(
    ("option", "axis", "column"), [("horizontal_flip", 1, 0), ("vertical_flip", 0, 1)], ids=["horizontal", "vertical"]
)
def test_a_flip_mirrors_pixels_boxes_and_masks(option: str, axis: int, column: int) -> None:
    there = objects([[30, 45, 60, 90]], [1], [[np.array([[30.0, 45], [60, 50], [50, 90]])]])
    source = Source(NOISE, there, (90, 120))
    plain, flipped = (
        sampled(0, 64, recipe=recipe, load=lambda _: source)
        for recipe in (NOTHING, replace(NOTHING, **at(option, 1.0)))
    )
    assert (flipped.pixels == np.flip(plain.pixels, axis)).all()
    assert flipped.boxes[0, column] == 1 - plain.boxes[0, column]
    assert plain.masks is not None
    assert flipped.masks is not None
    assert (flipped.masks == np.flip(plain.masks, axis + 1)).all()


def test_quarter_turns_move_pixels_and_masks_alike() -> None:
    there = objects([[30, 45, 60, 90]], [1], [[np.array([[30.0, 45], [60, 50], [50, 90]])]])
    source, turns = Source(NOISE, there, (90, 120)), set()
    plain = sampled(0, 64, load=lambda _: source)
    for seed in range(12):
        turned = sampled(seed, 64, recipe=replace(NOTHING, rotate90=1.0), load=lambda _: source)
        (turn,) = (k for k in range(4) if (turned.pixels == np.rot90(plain.pixels, k)).all())
        turns.add(turn)
        assert plain.masks is not None
        assert turned.masks is not None
        assert (turned.masks[0] == np.rot90(plain.masks[0], turn)).all()
        cx, cy, w, h = plain.boxes[0]
        expected = {1: [cy, 1 - cx, h, w], 2: [1 - cx, 1 - cy, w, h], 3: [1 - cy, cx, h, w]}[turn]
        np.testing.assert_allclose(turned.boxes[0], expected, atol=1e-6)
    assert turns == {1, 2, 3}


def test_boxes_are_cut_at_the_crop_and_those_outside_go_with_their_labels() -> None:
    there = objects([[0, 0, 20, 20], [0, 0, 10, 10], [60, 60, 90, 90], [12, 12, 14, 14]], [1, 2, 3, 4])
    scene = shown(BLACK, there, (10.0, 10.0, 50.0, 50.0), 32)
    assert scene.labels.tolist() == [1, 4]
    np.testing.assert_allclose(scene.boxes, [[0.125, 0.125, 0.25, 0.25], [0.075, 0.075, 0.05, 0.05]], atol=1e-6)


@pytest.mark.parametrize("recipe", [Recipe(), Recipe(mosaic=1.0, mixup=1.0, copy_paste=1.0, degrees=9.0)])
def test_an_image_without_objects(recipe: Recipe) -> None:
    empty = Source(BLACK[:9, :9], objects([], [], []), (9, 9))
    scene = sampled(0, 32, recipe=recipe, load=lambda _: empty)
    assert scene.pixels.shape == (32, 32, 3)
    assert scene.boxes.shape == (0, 4)
    assert scene.masks is not None
    assert scene.masks.shape == (0, 32, 32)


ALL = Recipe(
    0.5, 0.5, 0.3, 0.5, 0.7, 20.0, 0.2, 0.1, 5.0, 0.7, 0.2, 0.2, 0.2, 0.1, 0.2, 0.3, 0.3, 0.4, 0.3, 0.4, pipeline=None
)


def test_a_sample_depends_on_its_random_numbers_alone() -> None:
    first = [everything(sampled(seed, recipe=ALL)) for seed in range(8)]
    np.random.seed(3)  # noqa: NPY002
    assert [everything(sampled(seed, recipe=ALL)) for seed in reversed(range(8))] == first[::-1]


@pytest.mark.parametrize("name", RECIPES)
def test_the_named_recipes(name: str) -> None:
    """Boxes and masks fit into the input and go together; `none` leaves pictures as they are."""
    changed = 0
    for seed in range(10):
        scene, plain = sampled(seed, recipe=RECIPES[name]), sampled(seed)
        changed += scene.pixels.tobytes() != plain.pixels.tobytes()
        assert scene.pixels.shape == plain.pixels.shape
        assert scene.pixels.dtype == np.uint8
        assert scene.boxes.dtype == np.float32
        corners = np.concatenate(
            [scene.boxes[:, :2] - scene.boxes[:, 2:] / 2, scene.boxes[:, :2] + scene.boxes[:, 2:] / 2]
        )
        assert (corners >= -1e-6).all()
        assert (corners <= 1 + 1e-6).all()
        assert scene.masks is not None
        assert len(scene.masks) == len(scene.labels) == len(scene.boxes)
    assert changed == 0 if name == "none" else changed > 4


# Values that show in most pictures.
OPTIONS = {
    "horizontal_flip": 1.0,
    "vertical_flip": 1.0,
    "rotate90": 1.0,
    "crop": 1.0,
    "degrees": 90.0,
    "scale": 0.5,
    "translate": 0.5,
    "shear": 30.0,
    "brightness": 0.5,
    "contrast": 0.5,
    "saturation": 0.5,
    "hue": 0.5,
    "grayscale": 1.0,
    "blur": 1.0,
    "noise": 1.0,
    "mosaic": 1.0,
    "mixup": 1.0,
    "copy_paste": 1.0,
}


@pytest.mark.parametrize("option", OPTIONS)
def test_each_option_changes_pictures(option: str) -> None:
    recipe = TrainConfig(dataset_dir="data", augment="none", **at(option, OPTIONS[option])).recipe
    pairs = [(sampled(seed, 96, recipe=recipe), sampled(seed, 96)) for seed in range(6)]
    assert sum(scene.pixels.tobytes() != plain.pixels.tobytes() for scene, plain in pairs) > 3
    if option in ("mosaic", "mixup", "copy_paste"):
        assert any(set(scene.labels) - set(plain.labels) for scene, plain in pairs)


@pytest.mark.parametrize(("chance", "amount"), [("affine", "translate"), ("color_jitter", "brightness")])
def test_a_chance_says_how_many_pictures_its_amounts_change(chance: str, amount: str) -> None:
    recipe = TrainConfig(dataset_dir="data", augment="none", **at(chance, 0.3), **at(amount, 0.5)).recipe
    source = drawn(1)
    plain = sampled(0, 32, load=lambda _: source).pixels
    changed = [(sampled(seed, 32, recipe=recipe, load=lambda _: source).pixels != plain).any() for seed in range(200)]
    assert np.mean(changed) == pytest.approx(0.3, abs=0.09)
