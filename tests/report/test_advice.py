from dataclasses import replace

import numpy as np
import pytest

from rfdetr.config.presets import PRESETS
from rfdetr.config.runs import Split, TrainConfig
from rfdetr.data.copies import Copies, Place
from rfdetr.data.statistics import SplitStatistics
from rfdetr.report.advice import Advice, Numbers, advice


def split(
    counts: list[int], side: float = 200, size_hw: tuple[int, int] = (576, 576), labels: list[int] | None = None
) -> SplitStatistics:
    """Images with so many objects each, all squares; of class 0, unless told otherwise."""
    total = sum(counts)
    return SplitStatistics(
        num_classes=2,
        sizes_hw=np.tile(np.array(size_hw), (len(counts), 1)),
        images=np.repeat(np.arange(len(counts)), counts),
        labels=np.array(labels if labels is not None else [row % 2 for row in range(total)], np.int64),
        boxes=np.tile(np.array([0, 0, side, side], np.float32), (total, 1)),
        num_crowd=0,
    )


# Enough of everything for the defaults: nothing is to be said of it.
PLENTY = Numbers(
    {"train": split([2] * 2000, 33), "valid": split([2] * 100, 33)}, ("cat", "dog"), PRESETS["medium"], 500
)


def said(numbers: Numbers) -> Advice:
    (line,) = advice(numbers)
    return line


def test_nothing_is_said_where_the_defaults_fit() -> None:
    assert advice(PLENTY) == []


def test_narrow_boxes_ask_for_a_resolution_that_the_model_can_take() -> None:
    line = said(replace(PLENTY, splits={**PLENTY.splits, "test": split([100] * 10, 5)}))
    assert line.message == (
        "19% of the boxes are narrower than 8 pixels at 576: resolution=928 leaves 0%, for 2.6 times the time and "
        "memory per image."
    )
    assert line.settings == {"resolution": 928}
    assert line.settings["resolution"] % PRESETS["medium"].block_size == 0


def test_boxes_too_narrow_for_any_resolution_ask_for_tiles() -> None:
    line = said(replace(PLENTY, splits={**PLENTY.splits, "test": split([100] * 10, 2)}))
    assert line.message.startswith("19% of the boxes are narrower than 8 pixels at 576, and 19% still at 1152: cutting")
    assert line.settings == {}


def test_wide_boxes_allow_a_smaller_size() -> None:
    line = said(replace(PLENTY, splits={"train": split([2] * 2000), "valid": split([2] * 100)}))
    assert line.message == (
        "95% of the boxes are wider than 200 pixels at 576, and than 133 at the 384 of nano, which is faster and may "
        "do as well."
    )
    assert line.settings == {"model": "nano"}


def test_more_objects_than_queries() -> None:
    lines = advice(replace(PLENTY, splits={**PLENTY.splits, "test": split([301, 620], 33)}))
    assert [line.settings for line in lines] == [{"num_queries": 700, "num_select": 700}, {"eval_max_dets": 700}]
    assert lines[0].message.startswith("2 images have more than 300 objects, the most that medium finds in one image")
    assert lines[1].message.startswith("1 image has more than eval_max_dets=500 objects")


@pytest.mark.parametrize(
    ("images", "settings"),
    [
        (12, {"epochs": 300}),
        (205, {"grad_accum_steps": 2}),
        (2000, {}),
        (120_000, {"epochs": 13}),
    ],
)
def test_steps_are_neither_too_few_nor_too_many(images: int, settings: dict[str, int]) -> None:
    lines = advice(replace(PLENTY, splits={**PLENTY.splits, "train": split([2] * images, 33)}))
    found = [line for line in lines if "steps of" in line.message]
    assert [dict(line.settings) for line in found] == ([settings] if settings else [])
    assert all(str(images) in line.message for line in found)


def test_few_images_ask_for_augmentation() -> None:
    lines = advice(replace(PLENTY, splits={**PLENTY.splits, "train": split([20] * 100, 33)}))
    assert {"augment": "aggressive"} in [line.settings for line in lines]


def test_classes_that_are_rare_or_not_there() -> None:
    labels = [0] * 3997 + [1] * 3
    rare = split([2] * 2000, 33, labels=labels)
    line = said(replace(PLENTY, splits={**PLENTY.splits, "train": rare}))
    assert line.message.startswith("Rare in train: dog (3 objects in 2 images); the most frequent, cat, has 3997:")
    assert line.settings == {}
    pasted = replace(PLENTY, model=PRESETS["seg-medium"], splits={**PLENTY.splits, "train": rare})
    assert {"copy_paste": 0.5} in [line.settings for line in advice(pasted)]
    absent = said(replace(PLENTY, splits={**PLENTY.splits, "train": split([2] * 2000, 33, labels=[0] * 4000)}))
    assert absent.message == "Class dog without an object in train: what is not there cannot be learned."
    unseen = said(replace(PLENTY, splits={**PLENTY.splits, "valid": split([2] * 100, 33, labels=[1] * 200)}))
    assert unseen.message.startswith("Class cat without an object in valid")


def test_a_missing_validation_split_is_offered() -> None:
    line = said(replace(PLENTY, splits={"train": PLENTY.splits["train"]}))
    assert line.message.startswith(
        "There is no validation split: valid_fraction=0.1 takes 200 of the 2000 training images"
    )
    assert line.settings == {"valid_fraction": 0.1}


def test_a_small_validation_split_says_how_far_its_scores_can_be_trusted() -> None:
    line = said(replace(PLENTY, splits={**PLENTY.splits, "valid": split([10] * 5, 33)}))
    assert line.message.startswith("valid has 50 objects in 5 images: finding one more or less moves recall by 2.0%")


def test_leakage_is_counted() -> None:
    pair = [Place("train", 0, "a.jpg"), Place("valid", 0, "b.jpg")]
    line = said(replace(PLENTY, copies=Copies(2, 2, [], [pair], [])))
    assert line.message.startswith("1 of 100 images of valid are in train too, or look like ones of it (1%)")


def test_long_images_are_squeezed() -> None:
    wide: dict[Split, SplitStatistics] = {"train": split([2] * 2000, 90, (576, 1728)), "valid": PLENTY.splits["valid"]}
    assert said(replace(PLENTY, splits=wide)).message.startswith("Half of the images are 3.0 times as wide as high")


def test_outlines_allow_masks() -> None:
    assert said(replace(PLENTY, outlined=1.0)).settings == {"model": "seg-medium"}


def test_advised_settings_of_training_are_valid() -> None:
    few = replace(PLENTY, splits={"train": split([600] * 3, 5)})
    settings = {name: value for line in advice(few) for name, value in line.settings.items()}
    assert settings.keys() == {
        "valid_fraction",
        "num_queries",
        "num_select",
        "eval_max_dets",
        "resolution",
        "epochs",
        "augment",
    }
    fields = {name: value for name, value in settings.items() if name in TrainConfig.model_fields}
    assert TrainConfig(dataset_dir="dataset", **fields).epochs == 300
