"""What a run is validated on: a split of the dataset, or a part of the training images."""

import numpy as np

from rfdetr.config.runs import Split
from rfdetr.console import say
from rfdetr.data.annotations import Annotations
from rfdetr.data.layout import Source, called
from rfdetr.data.reading import Dataset
from rfdetr.errors import ConfigError, DatasetError


def with_validation(dataset: Dataset, source: Source, fraction: float | None, seed: int) -> dict[Split, Annotations]:
    """The splits of a dataset, for validation a `fraction` of the training images where there is no split for it.

    Raises:
        DatasetError: there is no training split, or none for validation and no fraction.
        ConfigError: there is a validation split, and a fraction.
    """
    splits, where = dict(dataset.splits), called(source)
    if "train" not in splits:
        raise DatasetError(f"{where}: no split 'train'. There is: {', '.join(splits)}")
    if "valid" in splits:
        if fraction is not None:
            raise ConfigError(f"valid_fraction={fraction}: {where} has a validation split; leave it out")
        return splits
    if fraction is None:
        raise DatasetError(
            f"{where}: no split 'valid', without which the best weights cannot be found. Add one, or let "
            "valid_fraction=0.1 take a tenth of the training images for it"
        )
    if len(splits["train"]) < 2:
        raise DatasetError(f"{where}: valid_fraction needs at least two training images")
    splits["train"], splits["valid"] = split_off(splits["train"], fraction, seed)
    say(
        f"validation: {len(splits['valid'])} of the training images (valid_fraction={fraction}, valid_seed={seed}), "
        f"{len(splits['train'])} are left for training"
    )
    return splits


def split_off(train: Annotations, fraction: float, seed: int) -> tuple[Annotations, Annotations]:
    """The images of a training split divided by chance into training and validation, at least one each."""
    order = np.random.default_rng([seed, len(train)]).permutation(len(train))
    count = min(max(round(fraction * len(train)), 1), len(train) - 1)
    kept, held_out = np.sort(order[count:]), np.sort(order[:count])
    return train.subset(kept), train.subset(held_out, "valid")
