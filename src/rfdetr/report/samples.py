"""Some images of a split with what a detector finds on them."""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Bool, Float, Int
from PIL import Image

from rfdetr.data.annotations import Annotations
from rfdetr.data.images import open_image
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
    predict: Callable[[Image.Image], Detections], split: Annotations, indices: Sequence[int]
) -> Image.Image:
    """The truth of some images beside what `predict` says of them."""
    return comparison([_panel(predict, split, index) for index in indices])


def _panel(predict: Callable[[Image.Image], Detections], split: Annotations, index: int) -> Panel:
    path = split.image_path(index)
    image = open_image(path)
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    caption = path.name if len(path.name) <= 36 else f"{path.name[:22]}...{path.name[-11:]}"
    return Panel(caption, image, _truth(split, index, (image.height, image.width)), predict(image))


def _truth(split: Annotations, index: int, shown_hw: tuple[int, int]) -> Detections:
    """What there is to find in an image that was made smaller."""
    objects, size_hw = split.training_objects(index), split.size_hw(index)
    scale_xy = np.array(shown_hw[::-1]) / size_hw[::-1]
    boxes = objects.boxes.numpy() * np.tile(scale_xy, 2)
    masks = None
    if objects.segmentations is not None:
        masks = np.zeros((len(boxes), *shown_hw), bool)
        for mask, segmentation in zip(masks, objects.segmentations, strict=True):
            mask[:] = _smaller(segmentation, scale_xy, shown_hw)
    return named_detections(boxes, objects.labels.numpy(), split.classes, masks=masks)


def _smaller(
    segmentation: Segmentation, scale_xy: Float[np.ndarray, "2"], shown_hw: tuple[int, int]
) -> Bool[np.ndarray, "height width"]:
    if isinstance(segmentation, list):
        return decode(to_rle([polygon * scale_xy for polygon in segmentation], shown_hw))
    height, width = shown_hw
    return np.asarray(Image.fromarray(decode(segmentation)).resize((width, height)))
