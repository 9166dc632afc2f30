"""Some images of a split with what a detector finds on them."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int
from PIL import Image

from rfdetr.data.annotations import Annotations
from rfdetr.data.images import to_eight_bits
from rfdetr.data.resampling import Picture, smaller
from rfdetr.errors import ImageError
from rfdetr.inference.detections import Detections, named_detections
from rfdetr.masks import Segmentation, decode, to_rle
from rfdetr.report.draw import Panel, comparison

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


def sample_sheet(
    predict: Callable[[Picture], Detections], split: Annotations, indices: Sequence[int]
) -> Image.Image | None:
    """The truth of some images beside what `predict` says of them; None if none of them can be read."""
    panels = [panel for index in indices if (panel := _panel(predict, split, index))]
    return comparison(panels) if panels else None


def _panel(predict: Callable[[Picture], Detections], split: Annotations, index: int) -> Panel | None:
    try:
        picture = smaller(split.pictures.load(index, LONGEST_SIDE), LONGEST_SIDE)
    except ImageError:  # evaluation names and counts it
        return None
    image = to_eight_bits(picture)
    name = Path(split.pictures.name(index)).name
    caption = name if len(name) <= 36 else f"{name[:22]}...{name[-11:]}"
    return Panel(caption, image, _truth(split, index, (image.height, image.width)), predict(picture))


def _truth(split: Annotations, index: int, shown_hw: tuple[int, int]) -> Detections:
    """What there is to find in an image that was made smaller."""
    objects, size_hw = split.training_objects(index), split.size_hw(index)
    scale_xy = np.array(shown_hw[::-1]) / size_hw[::-1]
    boxes = objects.boxes * np.tile(scale_xy, 2)
    masks = None
    if objects.segmentations is not None:
        masks = np.zeros((len(boxes), *shown_hw), bool)
        for mask, segmentation in zip(masks, objects.segmentations, strict=True):
            mask[:] = _smaller(segmentation, scale_xy, shown_hw)
    return named_detections(boxes, objects.labels, split.classes, masks=masks)


def _smaller(
    segmentation: Segmentation, scale_xy: Float[np.ndarray, "2"], shown_hw: tuple[int, int]
) -> Bool[np.ndarray, "height width"]:
    if isinstance(segmentation, list):
        return decode(to_rle([polygon * scale_xy for polygon in segmentation], shown_hw))
    height, width = shown_hw
    return np.asarray(Image.fromarray(decode(segmentation)).resize((width, height)))
