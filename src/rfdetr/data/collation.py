"""Samples -> batches, between processes and on to the device.

Pixels travel as they are in the picture, a quarter of the bytes of the numbers that the detector wants; these are made
on the device.
"""

from dataclasses import replace
from multiprocessing.reduction import ForkingPickler
from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor

from rfdetr.data.preprocess import in_unit_range, normalize
from rfdetr.types import ImageBatch, Target

Sample = tuple[Shaped[Tensor, "channels size size"], Target]


def collate(samples: list[Sample]) -> ImageBatch:
    """One batch of raw pixels; of pictures of several types, of numbers in [0, 1]."""
    pictures = [pixels for pixels, _ in samples]
    if len({pixels.dtype for pixels in pictures}) > 1:
        pictures = [in_unit_range(pixels) for pixels in pictures]
    return ImageBatch(torch.stack(pictures), [target for _, target in samples])


def collate_step(samples: list[Sample], batch_size: int) -> list[ImageBatch]:
    """The micro-batches of one optimiser step."""
    return [collate(samples[start : start + batch_size]) for start in range(0, len(samples), batch_size)]


def on_device(batch: ImageBatch, device: torch.device) -> ImageBatch:
    """A batch of raw pixels as the detector wants it, there."""
    moved = batch.to(device, non_blocking=True)
    return replace(moved, images=normalize(moved.images))


# Between processes torch opens a file per tensor: with one per target and field, loaders run out of file handles.
def _reduce(batch: ImageBatch) -> tuple[Any, ...]:
    targets = [(t["boxes"].numpy(), t["labels"].numpy(), t["orig_size"].numpy(), t["image_id"]) for t in batch.targets]
    masks = torch.cat([t["masks"] for t in batch.targets]) if "masks" in batch.targets[0] else None
    return _rebuild, (batch.images, targets, masks)


def _rebuild(images: Tensor, targets: list[tuple[Any, ...]], masks: Tensor | None) -> ImageBatch:
    fields = [(*map(torch.from_numpy, arrays), image_id) for *arrays, image_id in targets]
    rebuilt: list[Target] = [
        {"boxes": boxes, "labels": labels, "orig_size": orig_size, "image_id": image_id}
        for boxes, labels, orig_size, image_id in fields
    ]
    if masks is not None:
        for target, own in zip(rebuilt, masks.split([len(target["boxes"]) for target in rebuilt]), strict=True):
            target["masks"] = own
    return ImageBatch(images, rebuilt)


ForkingPickler.register(ImageBatch, _reduce)
