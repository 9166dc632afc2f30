"""Box formats and overlaps. Inside the model boxes are cxcywh in [0, 1], outside xyxy in pixels.

`to_pixels` and `to_normalized` are the two functions that cross that line.
"""

import torch
from jaxtyping import Float
from torch import Tensor

# Smallest area a ratio divides by: a degenerate box gives overlap 0 rather than NaN.
MIN_AREA = 1e-7


def cxcywh_to_xyxy(boxes: Float[Tensor, "*N 4"]) -> Float[Tensor, "*N 4"]:
    """Corners of the boxes; negative widths and heights count as 0."""
    center, size = boxes[..., :2], boxes[..., 2:].clamp(min=0)
    return torch.cat([center - size / 2, center + size / 2], dim=-1)


def to_pixels(boxes: Float[Tensor, "*N 4"], size_hw: Float[Tensor, "*#N 2"]) -> Float[Tensor, "*N 4"]:
    """Normalised cxcywh -> xyxy in pixels, cut off at the image's border.

    >>> to_pixels(torch.tensor([[0.5, 0.5, 0.5, 2.0]]), torch.tensor([[100.0, 200.0]]))
    tensor([[ 50.,   0., 150., 100.]])
    """
    size_wh = size_hw.flip(-1)
    limits = torch.cat([size_wh, size_wh], dim=-1)
    return torch.minimum((cxcywh_to_xyxy(boxes) * limits).clamp(min=0), limits)


def to_normalized(boxes_xyxy: Float[Tensor, "N 4"], size_hw: tuple[int, int]) -> Float[Tensor, "N 4"]:
    """Xyxy in pixels -> normalised cxcywh.

    >>> to_normalized(torch.tensor([[50.0, 0.0, 150.0, 100.0]]), (100, 200))
    tensor([[0.5000, 0.5000, 0.5000, 1.0000]])
    """
    height, width = size_hw
    x1, y1, x2, y2 = boxes_xyxy.unbind(-1)
    return torch.stack(
        [(x1 + x2) / (2 * width), (y1 + y2) / (2 * height), (x2 - x1) / width, (y2 - y1) / height], dim=-1
    )


def area(boxes_xyxy: Float[Tensor, "*N 4"]) -> Float[Tensor, "*N"]:
    return (boxes_xyxy[..., 2] - boxes_xyxy[..., 0]) * (boxes_xyxy[..., 3] - boxes_xyxy[..., 1])


def _overlap(a: Float[Tensor, "*#N 4"], b: Float[Tensor, "*#N 4"]) -> tuple[Float[Tensor, "..."], Float[Tensor, "..."]]:
    """IoU and union of boxes that broadcast against each other, xyxy."""
    (ax1, ay1, ax2, ay2), (bx1, by1, bx2, by2) = a.unbind(-1), b.unbind(-1)
    width = (torch.minimum(ax2, bx2) - torch.maximum(ax1, bx1)).clamp(min=0)
    height = (torch.minimum(ay2, by2) - torch.maximum(ay1, by1)).clamp(min=0)
    inter = width * height
    union = area(a) + area(b) - inter
    return inter / union.clamp(min=MIN_AREA), union


def iou(a: Float[Tensor, "*#N 4"], b: Float[Tensor, "*#N 4"]) -> Float[Tensor, "..."]:
    """Intersection over union of boxes paired by broadcasting, xyxy."""
    return _overlap(a, b)[0]


def giou(a: Float[Tensor, "*#N 4"], b: Float[Tensor, "*#N 4"]) -> Float[Tensor, "..."]:
    """Generalised IoU (arXiv:1902.09630) of boxes paired by broadcasting, xyxy; in [-1, 1]."""
    overlap, union = _overlap(a, b)
    (ax1, ay1, ax2, ay2), (bx1, by1, bx2, by2) = a.unbind(-1), b.unbind(-1)
    width = (torch.maximum(ax2, bx2) - torch.minimum(ax1, bx1)).clamp(min=0)
    height = (torch.maximum(ay2, by2) - torch.minimum(ay1, by1)).clamp(min=0)
    hull = width * height
    return overlap - (hull - union) / hull.clamp(min=MIN_AREA)


def apply_deltas(deltas: Float[Tensor, "*#N 4"], reference: Float[Tensor, "*#N 4"]) -> Float[Tensor, "..."]:
    """Boxes that are `deltas` away from `reference`, both cxcywh: shifts in units of its size, sizes as exponents."""
    center = deltas[..., :2] * reference[..., 2:] + reference[..., :2]
    return torch.cat([center, deltas[..., 2:].exp() * reference[..., 2:]], dim=-1)
