"""Some images of a split with the objects that are to be found in them."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from PIL import Image

from rfdetr.data.annotations import Annotations
from rfdetr.data.resampling import Picture, smaller
from rfdetr.masks import Segmentation, decode, to_rle

# Larger images are made smaller first: full-size masks of a photograph take seconds and gigabytes.
LONGEST_SIDE = 1024


def pick_samples(split: Annotations, count: int) -> list[int]:
    """Images from all over the split, always the same; those without objects only where the others do not suffice."""
    objects_before = np.append(0, np.cumsum(~split.is_crowd))[split.offsets]
    has_objects = np.diff(objects_before) > 0
    filled = _spread(np.flatnonzero(has_objects), count)
    empty = _spread(np.flatnonzero(~has_objects), count - len(filled))
    return [*filled.tolist(), *empty.tolist()]


def _spread(items: Int[np.ndarray, "N"], count: int) -> Int[np.ndarray, "M"]:
    count = min(count, len(items))
    return items[np.arange(count) * len(items) // max(count, 1)]


class Shown(NamedTuple):
    """The objects of an image in the pixels of its smaller version."""

    boxes: Float[np.ndarray, "T 4"]  # xyxy
    labels: Int[np.ndarray, "T"]
    masks: Bool[np.ndarray, "T height width"] | None


def small_picture(split: Annotations, index: int, longest_side: int = LONGEST_SIDE) -> Picture:
    """Raises:
    ImageError: it cannot be read.
    """
    return smaller(split.pictures.load(index, longest_side), longest_side)


def caption(split: Annotations, index: int) -> str:
    """The name of a file, its middle left out where it is long."""
    name = Path(split.pictures.name(index)).name
    return name if len(name) <= 36 else f"{name[:22]}...{name[-11:]}"


def truth(split: Annotations, index: int, shown_hw: tuple[int, int]) -> Shown:
    """What there is to find in an image that was made smaller."""
    objects, size_hw = split.training_objects(index), split.size_hw(index)
    scale_xy = np.array(shown_hw[::-1]) / size_hw[::-1]
    boxes = objects.boxes * np.tile(scale_xy, 2)
    masks = None
    if objects.segmentations is not None:
        masks = np.zeros((len(boxes), *shown_hw), bool)
        for mask, segmentation in zip(masks, objects.segmentations, strict=True):
            mask[:] = _smaller(segmentation, scale_xy, shown_hw)
    return Shown(boxes, objects.labels, masks)


def _smaller(
    segmentation: Segmentation, scale_xy: Float[np.ndarray, "2"], shown_hw: tuple[int, int]
) -> Bool[np.ndarray, "height width"]:
    if isinstance(segmentation, list):
        return decode(to_rle([polygon * scale_xy for polygon in segmentation], shown_hw))
    height, width = shown_hw
    return np.asarray(Image.fromarray(decode(segmentation)).resize((width, height)))
