"""Samples, batches and loaders.

All randomness of a training sample comes from (seed, epoch, index): nothing depends on the number of worker processes,
on their order, or on where a run was interrupted.
"""

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from multiprocessing.sharedctypes import RawValue
from multiprocessing.util import Finalize
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from rfdetr import boxes as box_ops
from rfdetr.data import transforms
from rfdetr.data.annotations import Annotations
from rfdetr.data.batches import EpochBatches, SampleRequest
from rfdetr.data.collation import Sample, collate, collate_step
from rfdetr.data.images import open_image
from rfdetr.data.preprocess import squeezed
from rfdetr.errors import ImageError
from rfdetr.types import Target

Augment = Literal["default", "none"]


def read_image(annotations: Annotations, index: int) -> Image.Image:
    """The picture of an image.

    Raises:
        ImageError: it cannot be read, or is not of the size that its boxes were drawn at.
    """
    path = annotations.image_path(index)
    image = open_image(path)
    height, width = annotations.size_hw(index)
    if image.size != (width, height):
        turned = ". Its EXIF orientation turns it, its boxes were drawn without" * (image.size == (height, width))
        raise ImageError(
            f"{path}: is {image.width} x {image.height} pixels, but {annotations.annotation_file.name} says "
            f"{width} x {height}: its boxes would be misplaced{turned}. Correct one of the two"
        )
    return image


class TrainingDataset(Dataset[Sample]):
    """Augmented samples."""

    def __init__(self, annotations: Annotations, augment: Augment, seed: int) -> None:
        self.annotations = annotations
        self.augment = augment
        self.seed = seed

    def __getitem__(self, request: SampleRequest) -> Sample:
        image = read_image(self.annotations, request.index)
        size_hw = self.annotations.size_hw(request.index)
        geometry = transforms.whole_image(size_hw)
        if self.augment == "default":
            rng = np.random.default_rng([self.seed, request.epoch, request.index])
            geometry = transforms.sample_geometry(rng, size_hw)
        objects = self.annotations.training_objects(request.index)
        pixels, boxes, labels, masks = transforms.apply(image, objects, geometry, request.size)
        return pixels, _target(self.annotations, request.index, boxes, labels, masks)


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
            whole = transforms.whole_image(size_hw)
            masks = transforms.draw_masks(objects.segmentations, size_hw, whole, self.resolution)
        return pixels, _target(self.annotations, index, boxes, torch.from_numpy(objects.labels), masks)


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
    pin_memory: bool = False,
    persistent_workers: bool | None = None,
    prefetch_factor: int | None = None,
) -> DataLoader[Any]:
    """Yields the list of micro-batches of each step of `batches`; raises ImageError where a picture cannot be used.

    Workers persist by default. The epoch is that of `batches` when iteration starts.
    """
    dataset = TrainingDataset(annotations, augment, batches.seed)
    return _Loader(
        _Guarded(dataset, partial(collate_step, batch_size=batches.batch_size)),
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
    persistent_workers: bool | None = None,
    prefetch_factor: int | None = None,
) -> DataLoader[Any]:
    """Yields ImageBatches of every `world_size`-th image from `rank` on: over all ranks, each image exactly once.

    Only a loss needs `masks`; evaluation has its own way with them.
    """
    return _Loader(
        _Guarded(EvaluationDataset(annotations, resolution, masks), collate),
        sampler=range(rank, len(annotations), world_size),
        batch_size=batch_size,
        num_workers=num_workers,
        pin_memory=pin_memory,
        persistent_workers=num_workers > 0 if persistent_workers is None else persistent_workers,
        prefetch_factor=prefetch_factor,
    )


class _Guarded(Dataset[Any]):
    """Collated batches, or the error as a value: of a worker's exception, torch makes its traceback the message."""

    def __init__(self, samples: Dataset[Sample], collate: Callable[[list[Sample]], Any]) -> None:
        self.samples = samples
        self.collate = collate

    def __getitems__(self, requests: Sequence[Any]) -> Any:
        try:
            return self.collate([self.samples[request] for request in requests])
        except ImageError as error:
            return error


class _Loader(DataLoader[Any]):
    """A DataLoader of guarded batches. It leaves torch's global random state alone, whatever the number of workers."""

    def __init__(self, batches: _Guarded, **options: Any) -> None:
        is_over = RawValue("b", 0)
        initialize = partial(_ignore_signals, is_over)
        super().__init__(batches, collate_fn=_as_is, generator=torch.Generator(), worker_init_fn=initialize, **options)
        Finalize(self, setattr, (is_over, "value", 1), exitpriority=0)

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]  # nobody needs torch's own iterator class
        for batch in super().__iter__():
            if isinstance(batch, ImageError):
                try:
                    raise batch
                finally:
                    del batch  # a cycle through the traceback would keep the workers alive: seconds at exit
            yield batch


def _ignore_signals(is_over: Any, _: int) -> None:
    """Ctrl-C and SIGTERM often reach all processes of a program; the one that trains decides when the loaders end.

    When it exits, multiprocessing sends SIGTERM to those that are left, and waits for them without end.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0) if is_over.value else None)


def _as_is(batch: Any) -> Any:
    return batch
