"""Loss terms as pure functions: tensors in, a sum per layer out; no state, no device moves, no distributed calls."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from rfdetr.boxes import giou

# Share of the confidence in the target of a matched query; the rest is its overlap.
ALPHA = 0.25
# A matched query is never told that it is wrong altogether.
MIN_TARGET = 0.01
# Logits that the CPU works on at a time: what is made of them stays in the cache of a core.
PIECE = 1 << 15


Positives = tuple[Int[Tensor, "M"], Int[Tensor, "M"], Int[Tensor, "M"]]
"""Image, query and class of each matched pair; no two are the same."""


def iou_aware_bce(
    logits: Float[Tensor, "B Q C"], positives: Positives, overlaps: Float[Tensor, "M"], num_boxes: Float[Tensor, ""]
) -> Float[Tensor, ""]:
    """Binary cross-entropy whose target for a matched query grows with its overlap (Align-DETR, arXiv:2304.07527).

    The target t = p^alpha * iou^(1-alpha) at `positives` is not trained; everything else is a negative, weighted by its
    own probability squared, which is trained. Summed, then divided by `num_boxes`.
    """
    total: Tensor = _IouAwareBCE.apply(logits, positives, overlaps)  # type: ignore[no-untyped-call]
    return total / num_boxes


class _IouAwareBCE(torch.autograd.Function):
    """The sum, with its gradient written out.

    The logits of all queries and classes are the largest tensor of the losses: half the passes over it, and one copy
    kept for the backward pass in place of five.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, logits: Tensor, positives: Positives, overlaps: Tensor) -> Tensor:
        gradient = torch.empty_like(logits, memory_format=torch.contiguous_format)
        at_once = PIECE if logits.device.type == "cpu" else max(logits.numel(), 1)
        sums = [
            _all_negative(*piece)
            for piece in zip(logits.flatten().split(at_once), gradient.flatten().split(at_once), strict=True)
        ]
        x = logits[positives]
        matched, minus_log_other = x.sigmoid(), F.softplus(x)
        targets = (matched**ALPHA * overlaps ** (1 - ALPHA)).clamp(min=MIN_TARGET)
        # -t log(p) - (1 - t) log(1 - p), with log(p) = log(1 - p) + x, in place of what is there
        change = minus_log_other - targets * x - matched.square() * minus_log_other
        gradient[positives] = matched - targets
        ctx.save_for_backward(gradient)
        return torch.stack([*sums, change.sum()]).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * grad_output, None, None


def _all_negative(logits: Float[Tensor, "N"], gradient: Float[Tensor, "N"]) -> Float[Tensor, ""]:
    """The sum of -p^2 log(1 - p); writes its gradient."""
    probs = logits.sigmoid()
    minus_log_other = F.softplus(logits)  # -log(1 - p)
    weights = probs.square()
    torch.addcmul(probs, 1 - probs, minus_log_other, value=2, out=gradient).mul_(weights)
    return weights.dot(minus_log_other)


def l1_loss(
    boxes: Float[Tensor, "*N M 4"], gt_boxes: Float[Tensor, "*N M 4"], num_boxes: Float[Tensor, ""]
) -> Float[Tensor, "*N"]:
    """Distance of matched boxes, summed over the four numbers of cxcywh."""
    return (boxes - gt_boxes).abs().sum(dim=(-2, -1)) / num_boxes


def giou_loss(
    boxes_xyxy: Float[Tensor, "*N M 4"], gt_boxes_xyxy: Float[Tensor, "*N M 4"], num_boxes: Float[Tensor, ""]
) -> Float[Tensor, "*N"]:
    """1 - GIoU of matched boxes (arXiv:1902.09630)."""
    return (1 - giou(boxes_xyxy, gt_boxes_xyxy)).sum(dim=-1) / num_boxes


def mask_ce_loss(
    logits: Float[Tensor, "M P"], masks: Float[Tensor, "M P"], num_boxes: Float[Tensor, ""]
) -> Float[Tensor, ""]:
    """Binary cross-entropy of matched masks, the mean over their points."""
    per_point = F.binary_cross_entropy_with_logits(logits, masks, reduction="none")
    return per_point.mean(dim=-1).sum() / num_boxes


def mask_dice_loss(
    logits: Float[Tensor, "M P"], masks: Float[Tensor, "M P"], num_boxes: Float[Tensor, ""]
) -> Float[Tensor, ""]:
    """1 - Dice of matched masks (V-Net, arXiv:1606.04797; smoothed by 1 as in DETR)."""
    probs = logits.sigmoid()
    overlap = 2 * (probs * masks).sum(dim=-1)
    total = probs.sum(dim=-1) + masks.sum(dim=-1)
    return (1 - (overlap + 1) / (total + 1)).sum() / num_boxes
