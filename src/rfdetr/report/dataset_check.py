"""All that is to be said of a dataset before training: numbers, problems, copies, advice."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from rfdetr.config.datasets import CheckConfig
from rfdetr.config.model import ModelConfig
from rfdetr.config.runs import Split
from rfdetr.data.annotations import Annotations
from rfdetr.data.copies import Copies, Place, find_copies, report_copies
from rfdetr.data.layout import find_dataset
from rfdetr.data.outlines import MISSING
from rfdetr.data.problems import Problem, Problems
from rfdetr.data.reading import Dataset, read_dataset
from rfdetr.data.statistics import (
    NARROW,
    SizeShares,
    SplitStatistics,
    all_box_sizes,
    size_shares,
    statistics,
)
from rfdetr.errors import DatasetError
from rfdetr.report.advice import Advice, Numbers, advice, images_that_have


@dataclass(frozen=True)
class Check:
    """The result of looking at a dataset."""

    config: CheckConfig
    format: str | None
    """None: there is no dataset."""
    class_names: tuple[str, ...]
    splits: dict[Split, Annotations]
    statistics: dict[Split, SplitStatistics]
    unlisted: dict[Split, int]
    """Pictures beside the others that annotations do not list."""
    boxes: SizeShares
    copies: Copies | None
    problems: list[Problem]
    advice: list[Advice]

    @property
    def has_errors(self) -> bool:
        return any(problem.severity == "error" for problem in self.problems)

    @property
    def model(self) -> ModelConfig:
        return self.config.detector


def check_dataset(config: CheckConfig) -> Check:
    """Never raises for what is wrong with a dataset: it is in the result."""
    model = config.detector
    try:
        dataset = _read(config)
    except DatasetError as error:
        boxes = size_shares(np.zeros((0, 2)), model.resolution)
        return Check(config, None, (), {}, {}, {}, boxes, None, _why_not(config.dataset_dir, error), [])
    splits: dict[Split, Annotations] = {
        name: replace(split, pictures=split.pictures.configured(config.num_channels, config.max_image_megapixels))
        for name, split in dataset.splits.items()
    }
    numbers = {name: statistics(split) for name, split in splits.items()}
    copies = find_copies(splits, config.decode)
    problems = Problems()
    problems.extend(dataset.problems)
    _report_missing(dataset, config, problems)
    report_copies(copies, splits, problems)
    has_outline = np.concatenate([np.zeros(0, np.bool_), *(data.has_outline for data in dataset.data.values())])
    names = dataset.classes.names
    outlined = float(has_outline.mean()) if len(has_outline) else 0.0
    return Check(
        config=config,
        format=dataset.format,
        class_names=names,
        splits=splits,
        statistics=numbers,
        unlisted={name: len(data.unlisted) for name, data in dataset.data.items()},
        boxes=size_shares(all_box_sizes(list(numbers.values()), model.resolution), model.resolution),
        copies=copies,
        problems=problems.found,
        advice=advice(Numbers(numbers, names, model, config.eval_max_dets, outlined, copies)),
    )


def _read(config: CheckConfig) -> Dataset:
    """With outlines where they are needed, or where there are any.

    In the second case their defects are no errors, and that some objects have none is no problem.
    """
    dataset = read_dataset(config.dataset_dir, masks=config.needs_masks)
    has_outlines = any((data.has_outline & ~data.is_crowd).any() for data in dataset.data.values())
    if config.needs_masks or not has_outlines:
        return dataset
    outlined = read_dataset(config.dataset_dir, masks=True)
    known = set(dataset.problems)
    new = [
        replace(problem, severity="warning")
        for problem in outlined.problems
        if problem not in known and not problem.message.startswith(MISSING)
    ]
    return replace(outlined, problems=[*dataset.problems, *new])


def _why_not(dataset_dir: Path | str, error: DatasetError) -> list[Problem]:
    try:
        _, problems = find_dataset(dataset_dir)
    except DatasetError:
        problems = Problems()
    errors = [problem for problem in problems.found if problem.severity == "error"]
    return errors or [Problem("error", str(dataset_dir), str(error).removeprefix(f"{dataset_dir}: "))]


def _report_missing(dataset: Dataset, config: CheckConfig, problems: Problems) -> None:
    if "train" in dataset.missing:
        problems.error(config.dataset_dir, f"no split 'train'. There is: {', '.join(dataset.splits)}")
    elif "valid" in dataset.missing:
        problems.warning(
            config.dataset_dir,
            "no split 'valid', without which training does not start. Add one, or set valid_fraction",
        )


def brief(splits: Mapping[Split, Annotations], model: ModelConfig, eval_max_dets: int) -> list[str]:
    """Splits in a few lines, at the start of training; no picture is opened."""
    numbers = {name: statistics(split) for name, split in splits.items()}
    lines = [f"{name}: {_summary(own)}" for name, own in numbers.items()]
    everything = list(numbers.values())
    counts = np.concatenate([np.zeros(0, np.int64), *(own.objects_per_image for own in everything)])
    limits = {"num_queries": model.num_queries, "num_select": model.num_select, "eval_max_dets": eval_max_dets}
    over = {name: limit for name, limit in limits.items() if (counts > limit).any()}
    if over:
        names = " and ".join(f"{name}={limit}" for name, limit in over.items())
        images = images_that_have(counts > min(over.values()))
        lines.append(f"{images} more objects than {names}: up to {counts.max()}")
    shares = size_shares(all_box_sizes(everything, model.resolution), model.resolution)
    if shares.narrow > 0.05:
        lines.append(f"{shares.narrow:.0%} of the boxes are narrower than {NARROW:g} pixels at {model.resolution}")
    return lines


def _summary(own: SplitStatistics) -> str:
    text = f"{own.num_images} images, {own.num_objects} objects"
    if own.num_empty:
        text += f", {own.num_empty} of the images without objects"
    absent = int((own.objects_per_class == 0).sum())
    return text + (f", {absent} of {own.num_classes} classes without objects" if absent else "")


def to_json(check: Check) -> dict[str, Any]:
    """For programs: `format`, `classes`, `splits`, `problems`, and more beside."""
    model = check.model
    return {
        "dataset_dir": str(check.config.dataset_dir),
        "format": check.format,
        "classes": list(check.class_names),
        "splits": {name: _split_json(check, name) for name in check.statistics},
        "model": {
            "size": model.size,
            "resolution": model.resolution,
            "num_queries": model.num_queries,
            "num_select": model.num_select,
            "eval_max_dets": check.config.eval_max_dets,
        },
        "boxes": {name: round(value, 4) for name, value in vars(check.boxes).items()},
        "pictures": check.copies and _pictures_json(check.copies),
        "problems": [vars(problem) for problem in check.problems],
        "advice": [{"message": line.message, "settings": dict(line.settings)} for line in check.advice],
    }


def _split_json(check: Check, name: Split) -> dict[str, Any]:
    own = check.statistics[name]
    counts = own.objects_per_image
    limits = ("num_queries", "num_select", "eval_max_dets")
    values = (check.model.num_queries, check.model.num_select, check.config.eval_max_dets)
    return {
        "images": own.num_images,
        "objects": own.num_objects,
        "empty": own.num_empty,
        "unlisted": check.unlisted.get(name, 0),
        "crowd": own.num_crowd,
        "objects_per_class": own.objects_per_class.tolist(),
        "images_per_class": own.images_per_class.tolist(),
        "objects_per_image": {
            "median": median(counts),
            "most": int(counts.max(initial=0)),
            **{
                f"images_over_{limit}": int((counts > value).sum()) for limit, value in zip(limits, values, strict=True)
            },
        },
    }


def median(counts: Any) -> float:
    return float(np.median(counts)) if len(counts) else 0.0


def _pictures_json(copies: Copies) -> dict[str, Any]:
    return {
        "looked_at": copies.looked_at,
        "of": copies.num_pictures,
        "unreadable": [{"file": shown(place), "message": reason} for place, reason in copies.unreadable],
        "equal": [_group(group) for group in copies.equal],
        "similar": [_group(group) for group in copies.similar],
        "leaked": {
            f"{split} in {earlier}": [shown(place) for place, _ in pairs]
            for (split, earlier), pairs in copies.leaked.items()
        },
    }


def _group(places: Sequence[Place]) -> list[str]:
    return [shown(place) for place in places]


def shown(place: Place) -> str:
    return f"{place.split}/{place.name}"
