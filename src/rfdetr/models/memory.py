"""The feature levels as one sequence of tokens, with what is known about their padding."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor


@dataclass(frozen=True)
class Memory:
    """Tokens of all levels, level by level and row by row. The mask is True on padding; None means no padding."""

    tokens: Float[Tensor, "B S D"]
    spatial_shapes: list[tuple[int, int]]  # (height, width) per level
    level_masks: list[Bool[Tensor, "B ..."]] | None

    @classmethod
    def from_levels(
        cls, levels: list[Float[Tensor, "B D ..."]], padding_mask: Bool[Tensor, "B height width"] | None
    ) -> "Memory":
        shapes = [(level.shape[2], level.shape[3]) for level in levels]
        # The inverse of what the norm before did: OpenVINO, which has no strides, then carries out neither.
        tokens = torch.cat([level.permute(0, 2, 3, 1).flatten(1, 2) for level in levels], dim=1)
        masks = None
        if padding_mask is not None:
            pixels = padding_mask.unsqueeze(1).float()
            masks = [F.interpolate(pixels, size=shape).squeeze(1).bool() for shape in shapes]
        return cls(tokens, shapes, masks)

    def valid_sizes(self, level: int) -> Float[Tensor, "B_or_1 2"]:
        """(width, height) of the unpadded part of a level, in cells."""
        if self.level_masks is None:
            return self._size_wh(level)
        inside = ~self.level_masks[level]
        return torch.stack([inside[:, 0].sum(dim=-1), inside[:, :, 0].sum(dim=-1)], dim=-1).float()

    def scale_boxes(self, boxes: Float[Tensor, "B Q 4"], level: int) -> Float[Tensor, "B Q 4"]:
        """Boxes relative to the unpadded image -> relative to the whole level."""
        if self.level_masks is None:
            return boxes
        ratios = self.valid_sizes(level) / self._size_wh(level)
        return boxes * torch.cat([ratios, ratios], dim=-1).unsqueeze(1)

    def _size_wh(self, level: int) -> Float[Tensor, "1 2"]:
        """Made on the device: numbers that are copied there from the host would wait for all that it has to do."""
        height, width = self.spatial_shapes[level]
        device = self.tokens.device
        return torch.stack([torch.full((1,), float(side), device=device) for side in (width, height)], dim=-1)

    def zero_padding(self, tokens: Float[Tensor, "B S D"]) -> Float[Tensor, "B S D"]:
        if self.level_masks is None:
            return tokens
        mask = torch.cat([level.flatten(1) for level in self.level_masks], dim=1)
        return tokens.masked_fill(mask.unsqueeze(-1), 0.0)
