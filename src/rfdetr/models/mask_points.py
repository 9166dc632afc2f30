"""Masks are compared at a few random points, most of them where the prediction is unsure (PointRend, arXiv:1912.08193).

Points are (x, y) in [0, 1] of the input.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
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
    seed: int | None = None
    """With it, points depend on it and on the image alone, not on the batch. None: they come from torch's generator."""


class RandomPoints:
    """The source of points of one batch: shared by its images, or each image's own."""

    def __init__(self, seed: int | None, image_ids: Sequence[int], device: torch.device) -> None:
        self.device = device
        self._shared = None if seed is None else self._generator(seed)
        self._of_image = None if seed is None else [self._generator(seed, image_id) for image_id in image_ids]

    def _generator(self, *seeds: int) -> torch.Generator:
        mixed = np.random.SeedSequence([seed % 2**64 for seed in seeds]).generate_state(1, np.uint64)[0]
        return torch.Generator(self.device).manual_seed(int(mixed >> 1))

    def shared(self, count: int) -> Float[Tensor, "1 {count} 2"]:
        """For all masks of all images."""
        return torch.rand(1, count, 2, device=self.device, generator=self._shared)

    def per_mask(self, masks: Sequence[int], count: int) -> Float[Tensor, "M {count} 2"]:
        """For each mask, given how many each image has."""
        if self._of_image is None:
            return torch.rand(sum(masks), count, 2, device=self.device)
        pairs = zip(masks, self._of_image, strict=True)
        return torch.cat([torch.rand(own, count, 2, device=self.device, generator=random) for own, random in pairs])


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
    columns, lines = (
        # In the steps of torch's nearest grid_sample, which rounds half to even.
        (((2 * place - 1 + 1) * size - 1) / 2).round().long().clamp(0, size - 1)
        for place, size in zip(points.unbind(-1), (width, height), strict=True)
    )
    return masks[rows.unsqueeze(-1), lines, columns].float()


@torch.no_grad()
def unsure_points(
    logits: Float[Tensor, "M h w"], masks: Sequence[int], count: int, random: RandomPoints
) -> Float[Tensor, "M {count} 2"]:
    """`count` random points for each mask, three quarters of them where its logit is near 0.

    `masks` says how many of them each image has.
    """
    unsure = int(UNSURE_SHARE * count)
    candidates = random.per_mask(masks, OVERSAMPLING * count)
    confidence = logits_at(logits.unsqueeze(1), candidates).squeeze(1).abs()
    chosen = confidence.topk(unsure, dim=1, largest=False).indices
    kept = candidates.gather(1, chosen.unsqueeze(-1).expand(-1, -1, 2))
    return torch.cat([kept, random.per_mask(masks, count - unsure)], dim=1)
