"""Training augmentation: what happens to an image and its objects, drawn first and applied in one resize."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from PIL import Image
from torch import Tensor

from rfdetr import boxes as box_ops
from rfdetr import masks as mask_ops
from rfdetr.data.annotations import Objects
from rfdetr.data.preprocess import to_pixels

CROP_PROBABILITY = 0.5
FLIP_PROBABILITY = 0.5
# A crop is a square of at least MIN_CROP pixels in the image with its shorter side scaled to one of these (DETR).
SHORT_SIDES = (400, 500, 600)
MIN_CROP = 384


@dataclass(frozen=True)
class Geometry:
    """The region of the image (xyxy in its pixels, not rounded) that fills the input, and whether it is mirrored."""

    crop_xyxy: tuple[float, float, float, float]
    flip: bool = False


def whole_image(size_hw: tuple[int, int]) -> Geometry:
    height, width = size_hw
    return Geometry((0.0, 0.0, float(width), float(height)))


def sample_geometry(rng: np.random.Generator, size_hw: tuple[int, int]) -> Geometry:
    """The whole image or a random square of it, mirrored or not."""
    flip = bool(rng.random() < FLIP_PROBABILITY)
    if rng.random() >= CROP_PROBABILITY:
        return Geometry(whole_image(size_hw).crop_xyxy, flip)
    height, width = size_hw
    short_side = int(rng.choice(SHORT_SIDES))
    side = int(rng.integers(MIN_CROP, short_side, endpoint=True)) / short_side * min(height, width)
    left, top = rng.uniform(0, width - side), rng.uniform(0, height - side)
    # The sums may round to just above the image's size, which PIL refuses.
    return Geometry((left, top, min(left + side, float(width)), min(top + side, float(height))), flip)


def apply(
    image: Image.Image, objects: Objects, geometry: Geometry, size: int
) -> tuple[
    UInt8[Tensor, "3 size size"],
    Float[Tensor, "T 4"],
    Int[Tensor, "T"],
    Bool[Tensor, "T size size"] | None,
]:
    """The pixels, the boxes (cxcywh in [0, 1]) that it shows something of, their labels and masks."""
    resized = image.resize((size, size), Image.Resampling.BILINEAR, box=geometry.crop_xyxy)
    if geometry.flip:
        resized = resized.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    x1, y1, x2, y2 = geometry.crop_xyxy
    whole = torch.from_numpy(objects.boxes)
    origin = whole.new_tensor([x1, y1, x1, y1])
    extent = whole.new_tensor([x2 - x1, y2 - y1, x2 - x1, y2 - y1])
    boxes = box_ops.clip_to_image((whole - origin) / extent, (1, 1))
    kept = box_ops.area(boxes) > 0
    boxes = box_ops.to_normalized(boxes[kept], (1, 1))
    if geometry.flip:
        boxes[:, 0] = 1 - boxes[:, 0]
    masks = None
    if objects.segmentations is not None:
        seen = list(compress(objects.segmentations, kept.tolist()))
        masks = draw_masks(seen, (image.height, image.width), geometry, size)
    return to_pixels(resized), boxes, torch.from_numpy(objects.labels)[kept], masks


def draw_masks(
    segmentations: Sequence[mask_ops.Segmentation], size_hw: tuple[int, int], geometry: Geometry, size: int
) -> Bool[Tensor, "T size size"]:
    """What the input shows of each object of an image of `size_hw`: nothing, where only a corner of its box is seen."""
    masks = np.empty((len(segmentations), size, size), dtype=np.bool_)
    for mask, segmentation in zip(masks, segmentations, strict=True):
        mask[:] = mask_ops.crop(segmentation, size_hw, geometry.crop_xyxy, geometry.flip, size)
    return torch.from_numpy(masks)
