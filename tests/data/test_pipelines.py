import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rfdetr.config.recipes import Recipe
from rfdetr.config.runs import TrainConfig
from rfdetr.data.pipelines import run_pipeline
from rfdetr.data.scenes import Source
from rfdetr.errors import ConfigError, TrainingError

from .drawn import CLASSES, color_numbers, corners_of, drawn, sampled, seen_near

Arrays = tuple[Any, Any, Any, Any]


def mirrored(image: np.ndarray, boxes: np.ndarray, labels: np.ndarray, masks: np.ndarray | None) -> Arrays:
    """An augmentation as a user writes it, with random numbers from everywhere."""
    if random.random() + np.random.random() + torch.rand(()).item() > 1.5:  # noqa: NPY002, S311
        return image, boxes, labels, masks
    boxes[:, [0, 2]] = image.shape[1] - boxes[:, [2, 0]]
    return image[:, ::-1], boxes, labels, masks if masks is None else masks[:, :, ::-1]


def left_half(image: np.ndarray, boxes: np.ndarray, labels: np.ndarray, masks: np.ndarray | None) -> Arrays:
    """It leaves cutting boxes and dropping objects to us."""
    half = image.shape[1] // 2
    return image[:, :half], boxes, labels, None if masks is None else masks[:, :, :half]


def of_albumentations(format_name: str, label_fields: list[str] | None) -> Any:
    albumentations = pytest.importorskip("albumentations")
    params = albumentations.BboxParams(format=format_name, label_fields=label_fields)
    steps = [
        albumentations.HorizontalFlip(p=0.5),
        albumentations.RandomSizedBBoxSafeCrop(150, 180, p=0.3),
        albumentations.Affine(rotate=(-20, 20), p=0.5),
        albumentations.CenterCrop(120, 110, p=0.5),
        albumentations.RandomBrightnessContrast(0.05, 0.05, p=0.5),
    ]
    return albumentations.Compose(steps, bbox_params=params)


def check_that_objects_are_where_they_say(pipeline: Any, form: str, seeds: int = 12) -> None:
    found, shapes = 0, set()
    for seed in range(seeds):
        scene = sampled(seed, form=form, recipe=Recipe.nothing_but(pipeline))
        shapes.add(scene.pixels.tobytes())
        numbers = color_numbers(scene.pixels)
        for row, (label, corners) in enumerate(zip(scene.labels, corners_of(scene), strict=True)):
            measured = seen_near(numbers, label, corners)
            if (corners[2:] - corners[:2]).min() < 6:
                continue
            if measured is None:  # only a corner of its box is seen
                assert corners.min() < 1 or corners.max() > 159
                continue
            assert (measured[:2] > corners[:2] - 2.5).all()
            assert (measured[2:] < corners[2:] + 2.5).all()
            if scene.masks is not None:
                seen = numbers == label
                assert (seen & scene.masks[row]).sum() > 0.85 * (seen | scene.masks[row]).sum()
            found += 1
    assert found > seeds
    assert len(shapes) > seeds / 2  # some crops show nothing


@pytest.mark.parametrize("pipeline", [mirrored, left_half])
@pytest.mark.parametrize("form", ["polygons", "code", "none"])
def test_a_function_of_the_user(pipeline: Callable[..., Any], form: str) -> None:
    check_that_objects_are_where_they_say(pipeline, form)


@pytest.mark.parametrize("name", ["pascal_voc", "coco", "yolo", "albumentations"])
def test_albumentations_in_each_of_its_formats(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_ALBUMENTATIONS_UPDATE", "1")
    check_that_objects_are_where_they_say(of_albumentations(name, ["category_ids"]), "none")


def test_albumentations_with_masks_which_it_never_drops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_ALBUMENTATIONS_UPDATE", "1")
    check_that_objects_are_where_they_say(of_albumentations("pascal_voc", ["a", "b"]), "polygons")


def test_albumentations_without_a_field_for_labels_and_without_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_ALBUMENTATIONS_UPDATE", "1")
    pipeline = of_albumentations("pascal_voc", None)
    check_that_objects_are_where_they_say(pipeline, "code")
    source = drawn(0)
    objects = source.objects
    empty = replace(
        source, objects=replace(objects, boxes=objects.boxes[:0], labels=objects.labels[:0], segmentations=[])
    )
    assert run_pipeline(pipeline, empty, 3, CLASSES).objects.segmentations == []


def test_albumentations_without_bbox_params_is_refused_before_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_ALBUMENTATIONS_UPDATE", "1")
    albumentations = pytest.importorskip("albumentations")
    pipeline = albumentations.Compose([albumentations.HorizontalFlip()])
    with pytest.raises(ConfigError, match="augment: Albumentations moves boxes only with bbox_params, as in Compose"):
        TrainConfig(dataset_dir="data", augment=pipeline)
    fitting = of_albumentations("coco", ["labels"])
    assert TrainConfig(dataset_dir="data", augment=fitting).recipe.pipeline is fitting


def test_torchvision() -> None:
    transforms = pytest.importorskip("torchvision.transforms.v2")
    steps = [
        transforms.RandomHorizontalFlip(),
        transforms.RandomRotation(15),
        transforms.RandomCrop(140, pad_if_needed=True),
        transforms.ColorJitter(brightness=0.1),
        transforms.SanitizeBoundingBoxes(),
    ]
    for form in ("polygons", "none"):
        check_that_objects_are_where_they_say(transforms.Compose(steps), form)
    with pytest.raises(
        TrainingError, match=r"returned an array of float32 .* as image; it must stay uint8 with 3 channels"
    ):
        run_pipeline(transforms.ToDtype(torch.float32, scale=True), drawn(0), 0, CLASSES)
    with pytest.raises(TrainingError, match="returned boxes as CXCYWH; they must stay XYXY"):
        run_pipeline(transforms.ConvertBoundingBoxFormat("CXCYWH"), drawn(0), 0, CLASSES)


def global_states() -> list[Any]:
    """Not that of `random`, which the checks of types in this suite use."""
    of_numpy: Any = np.random.get_state()  # noqa: NPY002
    return [of_numpy[1].tolist(), torch.get_rng_state().tolist()]


def test_a_pipeline_draws_the_same_for_the_same_sample_and_leaves_the_random_states_alone() -> None:
    source = drawn(0, "none")

    def pixels(seed: int) -> bytes:
        picture = run_pipeline(mirrored, source, seed, CLASSES).picture
        assert isinstance(picture, np.ndarray)
        return picture.tobytes()

    states = global_states()
    first = [pixels(seed) for seed in range(10)]
    assert states == global_states()
    random.seed(7)
    assert first == [pixels(seed) for seed in range(10)]
    assert len(set(first)) == 2


def test_a_pipeline_gets_the_picture_before_the_resize_and_the_options_apply_to_what_it_returns() -> None:
    sizes: list[Any] = []

    def note(image: np.ndarray, boxes: np.ndarray, labels: np.ndarray, masks: Any) -> Arrays:
        sizes.append((image.shape, image.dtype, boxes.dtype, labels.dtype, masks.dtype, masks.shape))
        return left_half(image, boxes, labels, masks)

    scene = sampled(2, recipe=replace(Recipe.nothing_but(note), horizontal_flip=1.0))
    plain = sampled(2, recipe=Recipe.nothing_but(left_half))
    source = drawn(20)
    count, (height, width) = len(source.objects.labels), source.size_hw
    assert sizes == [((height, width, 3), np.uint8, np.float32, np.int64, np.bool_, (count, height, width))]
    assert (scene.pixels == plain.pixels[:, ::-1]).all()


def returning(**changes: Any) -> Callable[..., Arrays]:
    def wrong(image: Any, boxes: Any, labels: Any, masks: Any) -> Arrays:
        given = {"image": image, "boxes": boxes, "labels": labels, "masks": masks}
        return tuple(changes[name](value) if name in changes else value for name, value in given.items())

    return wrong


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        (
            {"image": lambda image: image / 255},
            r"an array of float64 \[\d+, \d+, 3\] as image; it must stay uint8 with 3",
        ),
        (
            {"image": torch.from_numpy},
            r"a tensor of uint8 \[\d+, \d+, 3\] as image; it must be an array \[height, width, ",
        ),
        ({"image": lambda image: image[:0]}, r"an array of uint8 \[0, \d+, 3\] as image"),
        ({"image": lambda image: image[..., 0]}, r"an array of uint8 \[\d+, \d+\] as image"),
        ({"boxes": lambda boxes: boxes * np.nan}, "boxes that are not finite"),
        ({"boxes": lambda boxes: boxes[:, :3]}, r"an array of float32 \[\d, 3\] as boxes; .* shape \[objects, 4\]"),
        ({"boxes": lambda boxes: "left"}, "a str as boxes; they must be an array of numbers"),
        ({"boxes": lambda boxes: boxes[:0]}, r"0 boxes, but labels of shape \[\d\]; each box needs one"),
        ({"labels": lambda labels: labels + 7}, r"the label \d+, which is no class; allowed: \[0, 1, 2, 3, 4, 5, 6\]"),
        (
            {"labels": lambda labels: labels + 0.5},
            r"an array of float64 \[\d\] as labels; they must be .*whole numbers",
        ),
        ({"masks": lambda masks: None}, "no masks, but was given some"),
        (
            {"masks": lambda masks: masks[:, 1:]},
            r"masks of shape .*; \d boxes and an image of \d+ x \d+ pixels need \[",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_a_pipeline_returns_is_checked(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(
        TrainingError, match=rf"augment: .*test_pipelines\.returning\.<locals>\.wrong returned {problem}"
    ):
        run_pipeline(returning(**changes), drawn(0), 0, CLASSES)


def test_a_pipeline_that_returns_something_else_or_fails_is_named() -> None:
    def forgetful(image: Any, boxes: Any, labels: Any, masks: Any) -> None:
        return None

    with pytest.raises(
        TrainingError, match=r"forgetful returned a NoneType; it must return \(image, boxes, labels, mas"
    ):
        run_pipeline(forgetful, drawn(0), 0, CLASSES)
    with pytest.raises(TrainingError, match=r"int_of failed with TypeError: .* \(.*test_pipelines\.py, line \d+\)"):
        run_pipeline(int_of, drawn(0), 0, CLASSES)


def int_of(image: Any, *others: Any) -> Any:
    return int(image)


def test_boxes_are_cut_at_the_picture_and_empty_ones_go_with_their_masks() -> None:
    source = run_pipeline(left_half, drawn(1), 0, CLASSES)
    objects = source.objects
    assert isinstance(source, Source)
    assert 0 < len(objects.labels) < len(drawn(1).objects.labels)
    assert objects.boxes[:, 2].max() <= source.size_hw[1] == drawn(1).size_hw[1] // 2
    assert objects.segmentations is not None
    assert len(objects.segmentations) == len(objects.labels) == len(objects.boxes)


def test_neither_library_is_imported_by_ours() -> None:
    text = (Path(__file__).parents[2] / "src/rfdetr/data/pipelines.py").read_text()
    assert "import albumentations" not in text
    assert "import torchvision" not in text
