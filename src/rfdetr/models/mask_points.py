"""Masks are compared at a few random points, most of them where the prediction is unsure (PointRend, arXiv:1912.08193).

Points are (x, y) in [0, 1] of the input.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

# Candidates drawn per point kept, and the share of points that is kept for being unsure; the rest is anywhere.
OVERSAMPLING = 3
UNSURE_SHARE = 0.75


@dataclass(frozen=True)
class MaskSupervision:
    """What masks weigh in assignment and loss, and how many cells of the mask grid go for one point."""

    mask_ce: float = 5.0
    mask_dice: float = 5.0
    point_sample_ratio: int = 16


def logits_at(logits: Float[Tensor, "N C h w"], points: Float[Tensor, "N P 2"]) -> Float[Tensor, "N C P"]:
    """Maps read at points, bilinearly; beyond the outermost cell centres like there."""
    grid = (2 * points - 1).unsqueeze(2)
    read = F.grid_sample(logits.float(), grid, mode="bilinear", padding_mode="border", align_corners=False)
    return read.squeeze(3)


def masks_at(
    masks: Bool[Tensor, "T height width"], rows: Int[Tensor, "M"], points: Float[Tensor, "M P 2"]
) -> Float[Tensor, "M P"]:
    """Ground truth at points, one set of points for each of the `rows` of the masks: 1 inside, 0 outside.

    Only what is asked for is read: a mask is matched by many queries, and no copy of it is made for each.
    """
    height, width = masks.shape[-2:]
    size = points.new_tensor([width, height])
    # In the steps of torch's nearest grid_sample, which rounds half to even.
    cells = (((2 * points - 1 + 1) * size - 1) / 2).round().long()
    columns, lines = cells[..., 0].clamp(0, width - 1), cells[..., 1].clamp(0, height - 1)
    return masks[rows.unsqueeze(-1), lines, columns].float()


@torch.no_grad()
def unsure_points(logits: Float[Tensor, "M h w"], count: int) -> Float[Tensor, "M {count} 2"]:
    """`count` random points for each mask, three quarters of them where its logit is near 0."""
    masks, device = len(logits), logits.device
    unsure = int(UNSURE_SHARE * count)
    candidates = torch.rand(masks, OVERSAMPLING * count, 2, device=device)
    confidence = logits_at(logits.unsqueeze(1), candidates).squeeze(1).abs()
    chosen = confidence.topk(unsure, dim=1, largest=False).indices
    kept = candidates.gather(1, chosen.unsqueeze(-1).expand(-1, -1, 2))
    return torch.cat([kept, torch.rand(masks, count - unsure, 2, device=device)], dim=1)
