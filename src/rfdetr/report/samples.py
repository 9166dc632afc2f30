"""Some images of a split with what a detector finds on them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from PIL import Image
from torch import Tensor

from rfdetr.data.annotations import Annotations
from rfdetr.data.channels import Pixels
from rfdetr.data.images import to_eight_bits
from rfdetr.data.preprocess import as_source
from rfdetr.errors import ImageError
from rfdetr.inference.detections import named_detections
from rfdetr.report.draw import Panel, comparison
from rfdetr.report.ground_truth import caption, small_picture, truth

if TYPE_CHECKING:
    from supervision import Detections


def sample_sheet(
    predict: Callable[[Pixels | Tensor], Detections], split: Annotations, indices: Sequence[int]
) -> Image.Image | None:
    """The truth of some images beside what `predict` says of them; None if none of them can be read."""
    panels = [panel for index in indices if (panel := _panel(predict, split, index))]
    return comparison(panels) if panels else None


def _panel(predict: Callable[[Pixels | Tensor], Detections], split: Annotations, index: int) -> Panel | None:
    try:
        picture = small_picture(split, index)
    except ImageError:  # evaluation names and counts it
        return None
    image = to_eight_bits(picture)
    boxes, labels, masks = truth(split, index, (image.height, image.width))
    expected = named_detections(boxes, labels, split.classes, masks=masks)
    return Panel(caption(split, index), image, expected, predict(as_source(picture)))
