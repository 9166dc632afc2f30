"""Loss terms as pure functions: tensors in, one scalar out; no state, no device moves, no distributed calls."""

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from rfdetr.boxes import giou

# Share of the confidence in the target of a matched query; the rest is its overlap.
ALPHA = 0.25
# A matched query is never told that it is wrong altogether.
MIN_TARGET = 0.01


def iou_aware_bce(
    logits: Float[Tensor, "B Q C"],
    positives: tuple[Int[Tensor, "M"], Int[Tensor, "M"], Int[Tensor, "M"]],
    overlaps: Float[Tensor, "M"],
    num_boxes: Float[Tensor, ""],
) -> Float[Tensor, ""]:
    """Binary cross-entropy whose target for a matched query grows with its overlap (Align-DETR, arXiv:2304.07527).

    The target t = p^alpha * iou^(1-alpha) at `positives` (image, query, class) is not trained; everything else is a
    negative, weighted by its own probability squared, which is trained. Summed, then divided by `num_boxes`.
    """
    probs = logits.sigmoid()
    targets = (probs[positives].detach() ** ALPHA * overlaps ** (1 - ALPHA)).clamp(min=MIN_TARGET)
    negative = (probs**2).index_put(positives, 1 - targets)
    # -P log(p) - N log(1 - p), with log(1 - p) = log(p) - x; P is the target where matched and 0 elsewhere.
    log_probs = F.logsigmoid(logits)
    loss = (negative * (logits - log_probs)).sum() - (targets * log_probs[positives]).sum()
    return loss / num_boxes


def l1_loss(
    boxes: Float[Tensor, "M 4"], gt_boxes: Float[Tensor, "M 4"], num_boxes: Float[Tensor, ""]
) -> Float[Tensor, ""]:
    """Distance of matched boxes, summed over the four numbers of cxcywh."""
    return (boxes - gt_boxes).abs().sum() / num_boxes


def giou_loss(
    boxes_xyxy: Float[Tensor, "M 4"], gt_boxes_xyxy: Float[Tensor, "M 4"], num_boxes: Float[Tensor, ""]
) -> Float[Tensor, ""]:
    """1 - GIoU of matched boxes (arXiv:1902.09630)."""
    return (1 - giou(boxes_xyxy, gt_boxes_xyxy)).sum() / num_boxes


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
