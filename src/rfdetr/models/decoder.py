"""DETR decoder: queries attend to each other and, around their reference boxes, to the image."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from rfdetr.config.model import ModelConfig
from rfdetr.models.attention import attend
from rfdetr.models.deformable_attention import DeformableAttention
from rfdetr.models.memory import Memory
from rfdetr.models.mlp import MLP
from rfdetr.models.position_encoding import encode_boxes

FEEDFORWARD_WIDTH = 2048


class GroupSelfAttention(nn.Module):
    """Multi-head attention in which the queries of a group see only each other (Group DETR, arXiv:2207.13085).

    The parameters are named and packed as in torch's MultiheadAttention, as in the published weights.
    """

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * dim, dim))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * dim))
        self.out_proj = nn.Linear(dim, dim)

    def forward(
        self, x: Float[Tensor, "B_or_1 Q D"], position: Float[Tensor, "B Q D"], groups: int
    ) -> Float[Tensor, "B Q D"]:
        """The position is added to queries and keys, not to values. A single row of `x` is that of all images."""
        batch, queries, dim = position.shape
        split = [2 * dim, dim]
        weight_qk, weight_v = self.in_proj_weight.split(split)
        bias_qk, bias_v = self.in_proj_bias.split(split)
        query, key = F.linear(x + position, weight_qk, bias_qk).chunk(2, dim=-1)
        value = F.linear(x, weight_v, bias_v).expand(batch, -1, -1)

        def by_head(t: Tensor) -> Tensor:
            return t.reshape(batch * groups, queries // groups, self.num_heads, -1).transpose(1, 2)

        attended = attend(by_head(query), by_head(key), by_head(value))
        out: Tensor = self.out_proj(attended.transpose(1, 2).reshape(batch, queries, dim))
        return out


class DecoderLayer(nn.Module):
    """Self-attention, deformable cross-attention and feed-forward, each followed by its norm."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        dim, num_levels = config.hidden_dim, len(config.projector_scale)
        self.self_attn = GroupSelfAttention(dim, config.sa_nheads)
        self.norm1 = nn.LayerNorm(dim)
        self.cross_attn = DeformableAttention(dim, config.ca_nheads, num_levels, config.dec_n_points)
        self.linear1 = nn.Linear(dim, FEEDFORWARD_WIDTH)
        self.linear2 = nn.Linear(FEEDFORWARD_WIDTH, dim)
        self.norm2 = nn.LayerNorm(dim)
        self.norm3 = nn.LayerNorm(dim)

    def forward(
        self,
        tgt: Float[Tensor, "B_or_1 Q D"],
        query_pos: Float[Tensor, "B Q D"],
        reference: Float[Tensor, "B Q 4"],
        memory: Memory,
        groups: int,
    ) -> Float[Tensor, "B Q D"]:
        tgt = self.norm1(tgt + self.self_attn(tgt, query_pos, groups))
        tgt = self.norm2(tgt + self.cross_attn(tgt + query_pos, reference, memory))
        # Flat, as autograd copies a view that is changed in place.
        hidden = F.relu_(self.linear1(tgt.flatten(0, 1)))
        out: Tensor = self.norm3(tgt + self.linear2(hidden).view_as(tgt))
        return out


class Decoder(nn.Module):
    """Decoder layers around one reference box per query, which stays the same for all layers."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.dec_layers))
        self.norm = nn.LayerNorm(config.hidden_dim)
        self.ref_point_head = MLP(2 * config.hidden_dim, config.hidden_dim, config.hidden_dim)
        self.coordinate_dim = config.hidden_dim // 2

    def forward(
        self,
        tgt: Float[Tensor, "B_or_1 Q D"],
        reference: Float[Tensor, "B Q 4"],
        memory: Memory,
        groups: int,
    ) -> list[Float[Tensor, "B Q D"]]:
        """Query states after each layer (`hs`), normed."""
        query_pos = self._query_pos(memory.scale_boxes(reference, 0))
        hs = []
        for layer in self.layers:
            tgt = layer(tgt, query_pos, reference, memory, groups)
            hs.append(self.norm(tgt))
        return hs

    @torch.no_grad()
    def _query_pos(self, reference: Float[Tensor, "B Q 4"]) -> Float[Tensor, "B Q D"]:
        """The code of the reference boxes. The published recipe does not train it, nor the boxes through it."""
        position: Tensor = self.ref_point_head(encode_boxes(reference, self.coordinate_dim))
        return position
