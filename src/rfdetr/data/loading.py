"""Samples, batches and loaders.

All randomness of a training sample comes from (seed, epoch, index), and the attempt where images cannot be read:
nothing depends on the number of worker processes, on their order, or on where a run was interrupted.
"""

from collections.abc import Iterable, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from rfdetr import boxes as box_ops
from rfdetr.config.recipes import RECIPES, Recipe
from rfdetr.data.annotations import Annotations
from rfdetr.data.batches import EpochBatches, SampleRequest, images_of_rank
from rfdetr.data.collation import Sample, collate, collate_step
from rfdetr.data.geometry import draw_masks, whole_image
from rfdetr.data.loader import Loader
from rfdetr.data.preprocess import squeezed, to_pixels
from rfdetr.data.resampling import Picture, picture_hw, reduced_hw, reduction
from rfdetr.data.scenes import Source
from rfdetr.data.transforms import Augmenter
from rfdetr.data.unreadable import Unreadable, UnreadableImageError
from rfdetr.errors import ImageError
from rfdetr.types import Target

Augment = Recipe | str
"""A recipe, or the name of one."""
_ATTEMPTS = 1000
"""To find an image that can be read, for one sample: among so many that are drawn there is one, or hardly any."""


def read_image(annotations: Annotations, index: int, at_least: int | None = None) -> Picture:
    """The picture of an image; in full, or reduced to a shorter side of `at_least` pixels or somewhat more.

    Raises:
        UnreadableImageError: it cannot be read, or is not of the size that its boxes were drawn at.
    """
    try:
        picture = annotations.pictures.load(index, at_least)
    except ImageError as error:
        raise UnreadableImageError(index, str(error)) from None
    size_hw = annotations.size_hw(index)
    if picture_hw(picture) != reduced_hw(size_hw, reduction(size_hw, at_least)):
        raise UnreadableImageError(
            index,
            f"{annotations.pictures.name(index)}: is no longer of {size_hw[1]} x {size_hw[0]} pixels, as when the "
            "dataset was read: its boxes would be misplaced",
        )
    return picture


def still_unreadable(annotations: Annotations, indices: Iterable[int]) -> Unreadable:
    """Which of the images cannot be used, and why."""
    found: Unreadable = {}
    for index in indices:
        try:
            read_image(annotations, index)
        except UnreadableImageError as error:
            found[index] = str(error)
    return found


class TrainingDataset(Dataset[Sample]):
    """Augmented samples, from pictures that may be decoded at reduced scale (`at_least`: see `read_image`)."""

    def __init__(self, annotations: Annotations, augment: Augment, seed: int, at_least: int | None = None) -> None:
        self.annotations = annotations
        self.at_least = at_least
        recipe = RECIPES[augment] if isinstance(augment, str) else augment
        self.augmenter = Augmenter(recipe, self._source, len(annotations), annotations.classes)
        self.seed = seed

    def __getitem__(self, request: SampleRequest) -> Sample:
        """The sample of an image, or of another one if it cannot be read."""
        (sample,), _ = self.readable([request])
        return sample

    def readable(self, requests: Sequence[SampleRequest]) -> tuple[list[Sample], Unreadable]:
        """A sample for each request, and the images that others stand in for.

        Raises:
            ImageError: there is hardly an image that can be read.
        """
        found = [self._readable(request) for request in requests]
        return [sample for sample, _ in found], {index: why for _, failed in found for index, why in failed.items()}

    def _readable(self, request: SampleRequest) -> tuple[Sample, Unreadable]:
        """What stands in for an image depends on the request alone, as its own sample does."""
        unreadable: Unreadable = {}
        for attempt in range(_ATTEMPTS):
            # Numpy fills up with zeros: the first attempt has the numbers of [seed, epoch, index].
            rng = np.random.default_rng([self.seed, request.epoch, request.index, attempt])
            index = int(rng.integers(len(self.annotations))) if request.index in unreadable else request.index
            if index not in unreadable:
                try:
                    return self._sample(index, request.size, rng), unreadable
                except UnreadableImageError as error:
                    unreadable[error.index] = str(error)
        raise ImageError(
            f"of the {self.annotations.split} split, none of {len(unreadable)} images can be read, the first: "
            f"{next(iter(unreadable.values()))}"
        )

    def _sample(self, index: int, size: int, rng: np.random.Generator) -> Sample:
        """An image augmented as `rng` says.

        Raises:
            UnreadableImageError: names which.
        """
        scene = self.augmenter.sample(index, rng, size)
        boxes, labels = torch.from_numpy(scene.boxes), torch.from_numpy(scene.labels)
        masks = None if scene.masks is None else torch.from_numpy(scene.masks)
        return to_pixels(scene.pixels), _target(self.annotations, index, boxes, labels, masks)

    def _source(self, index: int) -> Source:
        objects, size_hw = self.annotations.training_objects(index), self.annotations.size_hw(index)
        return Source(read_image(self.annotations, index, self.at_least), objects, size_hw)


class EvaluationDataset(Dataset[Sample]):
    """Whole images at one resolution, with the objects a loss can be computed for; their masks where there are any."""

    def __init__(self, annotations: Annotations, resolution: int, masks: bool = True) -> None:
        self.annotations = annotations
        self.resolution = resolution
        self.masks = masks

    def __getitem__(self, index: int) -> Sample:
        pixels = squeezed(read_image(self.annotations, index), self.resolution)
        size_hw = self.annotations.size_hw(index)
        objects = self.annotations.training_objects(index)
        boxes = box_ops.to_normalized(torch.from_numpy(objects.boxes), size_hw)
        masks = None
        if self.masks and objects.segmentations is not None:
            size = (self.resolution, self.resolution)
            masks = torch.from_numpy(draw_masks(objects.segmentations, size_hw, whole_image(size_hw), size))
        return pixels, _target(self.annotations, index, boxes, torch.from_numpy(objects.labels), masks)

    def readable(self, indices: Sequence[int]) -> tuple[list[Sample], Unreadable]:
        """The samples of the images that can be read, and the other ones."""
        samples: list[Sample] = []
        unreadable: Unreadable = {}
        for index in indices:
            try:
                samples.append(self[index])
            except UnreadableImageError as error:
                unreadable[error.index] = str(error)
        return samples, unreadable


def _target(annotations: Annotations, index: int, boxes: Tensor, labels: Tensor, masks: Tensor | None) -> Target:
    target: Target = {
        "boxes": boxes,
        "labels": labels,
        "orig_size": torch.tensor(annotations.size_hw(index)),
        "image_id": int(annotations.image_ids[index]),
    }
    return target if masks is None else {**target, "masks": masks}


def training_loader(
    annotations: Annotations,
    batches: EpochBatches,
    *,
    augment: Augment,
    num_workers: int,
    at_least: int | None = None,
    pin_memory: bool = False,
    persistent_workers: bool | None = None,
    prefetch_factor: int | None = None,
) -> Loader:
    """Yields the list of micro-batches of each step of `batches`; other images stand in for those that cannot be read.

    Workers persist by default. The epoch is that of `batches` when iteration starts.
    """
    dataset = TrainingDataset(annotations, augment, batches.seed, at_least)
    return Loader(
        dataset,
        partial(collate_step, batch_size=batches.batch_size),
        batch_sampler=batches,
        num_workers=num_workers,
        pin_memory=pin_memory,
        persistent_workers=num_workers > 0 if persistent_workers is None else persistent_workers,
        prefetch_factor=prefetch_factor,
    )


def evaluation_loader(
    annotations: Annotations,
    resolution: int,
    *,
    batch_size: int,
    num_workers: int,
    masks: bool = True,
    rank: int = 0,
    world_size: int = 1,
    pin_memory: bool = False,
    prefetch_factor: int | None = None,
) -> Loader:
    """Yields ImageBatches of the images of a rank: over all ranks, each image exactly once.

    Those that cannot be read are left out, and their batch is smaller. Only a loss needs `masks`; evaluation has its
    own way with them.
    """
    return Loader(
        EvaluationDataset(annotations, resolution, masks),
        collate,
        sampler=images_of_rank(len(annotations), rank, world_size, annotations.shards).tolist(),
        batch_size=batch_size,
        num_workers=num_workers,
        pin_memory=pin_memory,
        prefetch_factor=prefetch_factor,
    )
