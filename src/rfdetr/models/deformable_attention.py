"""Multi-scale deformable attention (Deformable DETR, arXiv:2010.04159, section 4.1) in plain PyTorch."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from rfdetr.models.memory import Memory


class DeformableAttention(nn.Module):
    """Each query reads every level at a few points around its reference box, per head, and mixes what it finds."""

    def __init__(self, dim: int, num_heads: int, num_levels: int, num_points: int) -> None:
        super().__init__()
        self.num_heads, self.num_levels, self.num_points = num_heads, num_levels, num_points
        points = num_heads * num_levels * num_points
        self.sampling_offsets = nn.Linear(dim, points * 2)
        self.attention_weights = nn.Linear(dim, points)
        self.value_proj = nn.Linear(dim, dim)
        self.output_proj = nn.Linear(dim, dim)

    def forward(
        self,
        query: Float[Tensor, "B Q D"],
        reference: Float[Tensor, "B Q 4"],
        memory: Memory,
    ) -> Float[Tensor, "B Q D"]:
        """`reference` boxes are cxcywh relative to the unpadded image."""
        batch, queries, dim = query.shape
        heads, levels, points = self.num_heads, self.num_levels, self.num_points
        offsets, weights = self._offsets_and_weights(query)
        # Queries come last, one after the other in memory, from here on: few points per query make poor loops.
        # float32: positions need the precision, and the CPU kernel is faster in it than in bfloat16.
        offsets = offsets.float().view(batch, queries, heads, levels, points, 2).permute(0, 2, 3, 4, 1, 5)
        weights = weights.float().view(batch, queries, heads, levels * points).permute(0, 2, 3, 1).contiguous()
        weights = weights.softmax(dim=2).flatten(0, 1)
        sampled = []
        for level, value in enumerate(self._values(memory)):
            xy, wh = memory.scale_boxes(reference, level)[:, None, None].split(2, dim=-1)
            grid = torch.addcmul(2 * xy, offsets[:, :, level], wh / points) - 1
            sampled.append(
                F.grid_sample(
                    value.float(), grid.flatten(0, 1), mode="bilinear", padding_mode="zeros", align_corners=False
                )
            )
        found = sampled[0] if levels == 1 else torch.cat(sampled, dim=2)
        mixed = (found * weights.unsqueeze(1)).sum(dim=2)
        joined = mixed.view(batch, dim, queries).transpose(1, 2).to(query.dtype)
        out: Tensor = self.output_proj(joined)
        return out

    def _offsets_and_weights(self, query: Float[Tensor, "B Q D"]) -> tuple[Tensor, Tensor]:
        """In one product, as each is a narrow one."""
        parts = (self.sampling_offsets, self.attention_weights)
        both = F.linear(query, torch.cat([part.weight for part in parts]), torch.cat([part.bias for part in parts]))
        offsets, weights = both.split([part.out_features for part in parts], dim=-1)
        return offsets, weights

    def _values(self, memory: Memory) -> list[Float[Tensor, "N D ..."]]:
        """The projected memory, per level, as one map per image and head; padding reads as 0."""
        values = memory.zero_padding(self.value_proj(memory.tokens))
        batch, _, dim = values.shape
        maps = values.transpose(1, 2).reshape(batch * self.num_heads, dim // self.num_heads, -1)
        parts = maps.split([height * width for height, width in memory.spatial_shapes], dim=-1)
        return [part.unflatten(-1, shape) for part, shape in zip(parts, memory.spatial_shapes, strict=True)]
