"""What a split holds, in numbers: objects per class and image, sizes of boxes. No picture is opened."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float32, Float64, Int64

from rfdetr.data.annotations import Annotations, boxes_inside

SMALL, LARGE = 32.0, 96.0
"""Sides of the boxes that part small from medium from large ones, in pixels (COCO)."""


@dataclass(frozen=True, eq=False)
class SplitStatistics:
    """The objects of a split as training uses them: as `Annotations.training_objects` gives them, of all images."""

    num_classes: int
    sizes_hw: Int64[np.ndarray, "N 2"]  # of the images
    images: Int64[np.ndarray, "M"]  # row of each object's image
    labels: Int64[np.ndarray, "M"]  # class ids
    boxes: Float32[np.ndarray, "M 4"]  # xyxy in pixels
    num_crowd: int

    @property
    def num_images(self) -> int:
        return len(self.sizes_hw)

    @property
    def num_objects(self) -> int:
        return len(self.labels)

    @cached_property
    def objects_per_image(self) -> Int64[np.ndarray, "N"]:
        return np.bincount(self.images, minlength=self.num_images)

    @property
    def num_empty(self) -> int:
        """Images without objects, which teach what is background."""
        return int((self.objects_per_image == 0).sum())

    @cached_property
    def objects_per_class(self) -> Int64[np.ndarray, "C"]:
        return np.bincount(self.labels, minlength=self.num_classes)

    @cached_property
    def images_per_class(self) -> Int64[np.ndarray, "C"]:
        pairs = np.unique(self.images * max(self.num_classes, 1) + self.labels)
        return np.bincount(pairs % max(self.num_classes, 1), minlength=self.num_classes)

    def box_sizes(self, resolution: int) -> Float64[np.ndarray, "M 2"]:
        """Width and height of the boxes in pixels of a square input, to which images are squeezed."""
        own = self.boxes[:, 2:] - self.boxes[:, :2]
        sizes: Float64[np.ndarray, "M 2"] = own * (resolution / self.sizes_hw[self.images, ::-1])
        return sizes


def statistics(split: Annotations) -> SplitStatistics:
    images = np.repeat(np.arange(len(split)), np.diff(split.offsets))
    boxes, has_area = boxes_inside(split.boxes_xywh, split.sizes_hw[images])
    kept = has_area & ~split.is_crowd
    return SplitStatistics(
        num_classes=split.classes.num_classes,
        sizes_hw=split.sizes_hw,
        images=images[kept],
        labels=split.labels[kept],
        boxes=boxes[kept],
        num_crowd=int(split.is_crowd.sum()),
    )


def all_box_sizes(splits: Sequence[SplitStatistics], resolution: int) -> Float64[np.ndarray, "M 2"]:
    """Of several splits."""
    return np.concatenate([np.zeros((0, 2)), *(split.box_sizes(resolution) for split in splits)])


@dataclass(frozen=True)
class SizeShares:
    """Parts of the boxes, 0 to 1, by their size in pixels of the input."""

    resolution: int
    small: float
    """Of an area below 32 x 32."""
    medium: float
    large: float
    """Of an area above 96 x 96."""
    narrow: float
    """Of fewer than `NARROW` pixels on one side: about what a detector can just find."""


NARROW = 8.0


def size_shares(sizes: Float64[np.ndarray, "M 2"], resolution: int) -> SizeShares:
    """None of anything where there are no boxes."""
    if not len(sizes):
        return SizeShares(resolution, 0.0, 0.0, 0.0, 0.0)
    side = np.sqrt(sizes.prod(axis=1))
    small, large = float((side < SMALL).mean()), float((side > LARGE).mean())
    return SizeShares(resolution, small, max(0.0, 1 - small - large), large, narrow_share(sizes))


def narrow_share(sizes: Float64[np.ndarray, "M 2"], scale: float = 1.0) -> float:
    """Part of the boxes with a side of fewer than `NARROW` pixels once the input is `scale` times as large."""
    return float((sizes.min(axis=1) * scale < NARROW).mean()) if len(sizes) else 0.0
