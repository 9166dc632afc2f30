"""What follows from the numbers of a dataset for the settings of training. Nothing is said without its number."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import ceil
from typing import Any

import numpy as np
from jaxtyping import Bool

from rfdetr.config.model import ModelConfig
from rfdetr.config.presets import PRESETS
from rfdetr.config.runs import Split, TrainConfig
from rfdetr.data.batches import steps_per_epoch
from rfdetr.data.copies import Copies
from rfdetr.data.statistics import NARROW, SplitStatistics, all_box_sizes, narrow_share

_MANY_NARROW = 0.05  # part of the boxes
_WORTH_IT = 0.8  # of the narrow boxes: a resolution that leaves more is not
_WIDE_ENOUGH = 32.0  # pixels: boxes that a smaller size finds as well
_FEW_STEPS, _MANY_STEPS, _STEPS_PER_EPOCH = 2_000, 100_000, 20
_MOST_EPOCHS = 300
_FEW_IMAGES, _FEW_OBJECTS, _FEW_SCORED = 200, 20, 100
_RARE = 1 / 50  # of the most frequent class
_SHOWN = 5


@dataclass(frozen=True)
class Advice:
    """One thing to do; `settings` are those of training that do it."""

    message: str
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Numbers:
    """What advice follows from."""

    splits: Mapping[Split, SplitStatistics]
    class_names: tuple[str, ...]
    model: ModelConfig
    eval_max_dets: int
    outlined: float = 0.0
    """Part of the objects that have an outline."""
    copies: Copies | None = None


def advice(numbers: Numbers) -> list[Advice]:
    return [line for rule in _RULES for line in rule(numbers)]


def _missing_validation(numbers: Numbers) -> Iterator[Advice]:
    train = numbers.splits.get("train")
    if train and train.num_images > 1 and "valid" not in numbers.splits:
        fraction = 0.1 if train.num_images >= 500 else 0.2
        count = max(1, round(fraction * train.num_images))
        yield Advice(
            f"There is no validation split: valid_fraction={fraction} takes {count} of the {train.num_images} "
            "training images for it.",
            {"valid_fraction": fraction},
        )


def _leakage(numbers: Numbers) -> Iterator[Advice]:
    for (split, earlier), pairs in (numbers.copies.leaked if numbers.copies else {}).items():
        total = numbers.splits[split].num_images
        yield Advice(
            f"{len(pairs)} of {total} images of {split} are in {earlier} too, or look like ones of it "
            f"({len(pairs) / total:.0%}): leave them out of one of both, or scores come out too high."
        )


def _resolution(numbers: Numbers) -> Iterator[Advice]:
    model = numbers.model
    sizes = all_box_sizes(list(numbers.splits.values()), model.resolution)
    narrow = narrow_share(sizes)
    if narrow > _MANY_NARROW:
        steps = range(model.resolution + model.block_size, 2 * model.resolution + 1, model.block_size)
        left = {size: narrow_share(sizes, size / model.resolution) for size in steps}
        enough = next((size for size, share in left.items() if share <= max(_MANY_NARROW, narrow / 2)), max(left))
        text = f"{narrow:.0%} of the boxes are narrower than {NARROW:g} pixels at {model.resolution}"
        tiles = "cutting the images into tiles before training would leave fewer"
        if left[enough] > _WORTH_IT * narrow:
            yield Advice(f"{text}, and {left[enough]:.0%} still at {enough}: {tiles}.")
            return
        cost = (enough / model.resolution) ** 2
        text += f": resolution={enough} leaves {left[enough]:.0%}, for {cost:.1f} times the time and memory per image"
        text += f"; {tiles}" * (left[enough] > 2 * _MANY_NARROW)
        yield Advice(f"{text}.", {"resolution": enough})
    elif len(sizes):
        yield from _smaller_size(model, float(np.quantile(sizes.min(axis=1), 0.05)))


def _smaller_size(model: ModelConfig, width: float) -> Iterator[Advice]:
    """`width`: what 95% of the boxes reach at the model's resolution."""
    family = [
        size
        for size in PRESETS.values()
        if size.size.startswith(("seg-", "nano", "small", "medium", "large"))
        and size.segmentation_head == model.segmentation_head
        and size.resolution < model.resolution
        and not size.size.endswith(("deprecated", "preview"))
    ]
    enough = [size for size in family if width * size.resolution / model.resolution >= _WIDE_ENOUGH]
    if enough:
        size = min(enough, key=lambda size: size.resolution)
        yield Advice(
            f"95% of the boxes are wider than {width:.0f} pixels at {model.resolution}, and than "
            f"{width * size.resolution / model.resolution:.0f} at the {size.resolution} of {size.size}, which is "
            "faster and may do as well.",
            {"model": size.size},
        )


def _shape(numbers: Numbers) -> Iterator[Advice]:
    sizes = [split.sizes_hw for split in numbers.splits.values() if split.num_images]
    if sizes:
        ratio = float(np.median(np.concatenate([own[:, 1] / own[:, 0] for own in sizes])))
        if not 0.5 <= ratio <= 2:
            words = (ratio, "wide as high") if ratio > 1 else (1 / ratio, "high as wide")
            yield Advice(
                f"Half of the images are {words[0]:.1f} times as {words[1]} or more, and are squeezed to a square: "
                "cutting them into squares before training keeps more detail."
            )


def _queries(numbers: Numbers) -> Iterator[Advice]:
    model = numbers.model
    counts = np.concatenate([np.zeros(1, np.int64), *(own.objects_per_image for own in numbers.splits.values())])
    most = int(counts.max())
    roomy = ceil(1.1 * most / 50) * 50
    limit = min(model.num_queries, model.num_select)
    if most > limit:
        yield Advice(
            f"{images_that_have(counts > limit)} more than {limit} objects, the most that {model.size} finds in "
            f"one image; the fullest has {most}: num_queries={roomy}.",
            {"num_queries": roomy, "num_select": roomy},
        )
    limit = numbers.eval_max_dets
    if most > limit:
        yield Advice(
            f"{images_that_have(counts > limit)} more than eval_max_dets={limit} objects, so that even perfect "
            f"detections would not reach a recall of 1: eval_max_dets={roomy}.",
            {"eval_max_dets": roomy},
        )


def images_that_have(which: Bool[np.ndarray, "N"]) -> str:
    count = int(which.sum())
    return "1 image has" if count == 1 else f"{count} images have"


def _steps(numbers: Numbers) -> Iterator[Advice]:
    train = numbers.splits.get("train")
    if not train or not train.num_images:
        return
    batch, accum, epochs = (
        TrainConfig.model_fields[name].default for name in ("batch_size", "grad_accum_steps", "epochs")
    )
    settings: dict[str, Any] = {}
    before = steps_per_epoch(train.num_images, batch * accum)
    text = f"{train.num_images} training images are {before} steps of {batch} x {accum} images per epoch"
    fewer = max(1, min(accum, train.num_images // (batch * _STEPS_PER_EPOCH)))
    steps = steps_per_epoch(train.num_images, batch * fewer)
    if fewer < accum and steps > before:
        settings["grad_accum_steps"] = fewer
        text += f"; grad_accum_steps={fewer} makes it {steps}"
    if steps * epochs < _FEW_STEPS:
        settings["epochs"] = min(_MOST_EPOCHS, ceil(_FEW_STEPS / steps / 10) * 10)
    elif steps * epochs > _MANY_STEPS:
        settings["epochs"] = max(10, _MANY_STEPS // steps)
    if "epochs" in settings:
        total = settings["epochs"] * steps
        text += f"; epochs={settings['epochs']} makes {total:,} steps in all (with {epochs}: {epochs * steps:,})"
    if settings:
        yield Advice(text + ".", settings)


def _augmentation(numbers: Numbers) -> Iterator[Advice]:
    train = numbers.splits.get("train")
    if train and 0 < train.num_images < _FEW_IMAGES:
        yield Advice(
            f"{train.num_images} training images are few: augment='aggressive' varies them more, by turns, scale and "
            "colour ('conservative' if these tell classes apart); keep the pretrained weights.",
            {"augment": "aggressive"},
        )


def _classes(numbers: Numbers) -> Iterator[Advice]:
    train = numbers.splits.get("train")
    if not train or not train.num_objects:
        return
    counts, images, names = train.objects_per_class, train.images_per_class, numbers.class_names
    absent = [names[row] for row in np.flatnonzero(counts == 0)]
    if absent:
        yield Advice(f"{_few(absent)} without an object in train: what is not there cannot be learned.")
    most = int(counts.argmax())
    limit = max(_FEW_OBJECTS, _RARE * counts[most])
    few = [row for row in np.argsort(counts, kind="stable") if 0 < counts[row] < limit and row != most]
    if few:
        shown = [f"{names[row]} ({counts[row]} objects in {images[row]} images)" for row in few]
        can_paste = numbers.model.segmentation_head
        more = "copy_paste=0.5 shows them more often" if can_paste else "more images of them help more than any setting"
        yield Advice(
            f"Rare in train: {_few(shown, '')}; the most frequent, {names[most]}, has {counts[most]}: {more}.",
            {"copy_paste": 0.5} if can_paste else {},
        )
    valid = numbers.splits.get("valid")
    if valid and valid.num_objects:
        unseen = [names[row] for row in np.flatnonzero((valid.objects_per_class == 0) & (counts > 0))]
        if unseen:
            yield Advice(f"{_few(unseen)} without an object in valid: nothing will be known of how well it is found.")


def _few(names: list[str], noun: str = "class") -> str:
    """`class a`, `classes a, b and 3 more`; the names alone without a noun."""
    plural = f"{noun}es " if len(names) > 1 else f"{noun} "
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    text = (plural if noun else "") + ", ".join(names[:_SHOWN]) + more
    return text[0].upper() + text[1:] if noun else text


def _validation(numbers: Numbers) -> Iterator[Advice]:
    valid = numbers.splits.get("valid")
    if valid and 0 < valid.num_objects < _FEW_SCORED:
        yield Advice(
            f"valid has {valid.num_objects} objects in {valid.num_images} images: finding one more or less moves "
            f"recall by {1 / valid.num_objects:.1%}, so that small differences of mAP are chance. Move images to "
            "it from train."
        )


def _outlines(numbers: Numbers) -> Iterator[Advice]:
    size = f"seg-{numbers.model.size}"
    if numbers.outlined > 0.99 and not numbers.model.segmentation_head and size in PRESETS:
        yield Advice(
            f"{numbers.outlined:.0%} of the objects have an outline: {size} would learn masks too.", {"model": size}
        )


_RULES = (
    _missing_validation,
    _leakage,
    _queries,
    _resolution,
    _shape,
    _steps,
    _augmentation,
    _classes,
    _validation,
    _outlines,
)
