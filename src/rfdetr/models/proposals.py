"""One box proposal per token of the memory (Deformable DETR, arXiv:2010.04159, appendix A.4)."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from rfdetr.models.memory import Memory

# Side of a proposal on the finest level, relative to the image; it doubles from level to level.
BASE_SIZE = 0.05
# A proposal with a number outside this open interval is not used.
VALID_RANGE = (0.01, 0.99)


def propose_boxes(memory: Memory) -> tuple[Float[Tensor, "N S 4"], Bool[Tensor, "N S"]]:
    """A box (cxcywh, relative to the unpadded image) around each token, and whether it is valid; else it is all 0.

    N is the batch, or 1 without padding, when all images share the proposals. Padded cells lie outside the unpadded
    image, hence beyond the valid range.
    """
    device = memory.tokens.device
    levels = []
    for level, (height, width) in enumerate(memory.spatial_shapes):
        rows, columns = torch.meshgrid(
            torch.arange(height, device=device), torch.arange(width, device=device), indexing="ij"
        )
        cells = torch.stack([columns, rows], dim=-1).float().flatten(0, 1) + 0.5
        centers = cells / memory.valid_sizes(level).unsqueeze(1)
        levels.append(torch.cat([centers, torch.full_like(centers, BASE_SIZE * 2**level)], dim=-1))
    proposals = torch.cat(levels, dim=1)
    low, high = VALID_RANGE
    valid = ((proposals > low) & (proposals < high)).all(dim=-1)
    return proposals.masked_fill(~valid.unsqueeze(-1), 0.0), valid
