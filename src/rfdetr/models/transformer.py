"""Two-stage query selection in groups, then the decoder. There is no transformer encoder."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rfdetr.boxes import apply_deltas
from rfdetr.config.model import ModelConfig
from rfdetr.models.decoder import Decoder
from rfdetr.models.memory import Memory
from rfdetr.models.mlp import MLP
from rfdetr.models.proposals import propose_boxes
from rfdetr.types import LayerOutputs


class Transformer(nn.Module):
    """Every group has selection heads of its own; prediction uses the first group alone."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        dim, groups = config.hidden_dim, config.group_detr
        self.num_queries = config.num_queries
        self.decoder = Decoder(config)
        self.enc_output = nn.ModuleList(nn.Linear(dim, dim) for _ in range(groups))
        self.enc_output_norm = nn.ModuleList(nn.LayerNorm(dim) for _ in range(groups))
        self.enc_out_bbox_embed = nn.ModuleList(MLP(dim, dim, dim, 4) for _ in range(groups))
        self.enc_out_class_embed = nn.ModuleList(nn.Linear(dim, config.num_classes + 1) for _ in range(groups))

    def select(self, memory: Memory, groups: int) -> tuple[LayerOutputs, Float[Tensor, "B GQ D"]]:
        """The best tokens of each group and their predictions, group after group, best first within a group.

        An image with fewer tokens than queries gives all of them.
        """
        proposals, valid = propose_boxes(memory)
        tokens = memory.tokens * valid.unsqueeze(-1).to(memory.tokens.dtype)
        proposals = proposals.expand(tokens.shape[0], -1, -1)
        count = min(self.num_queries, tokens.shape[1])
        picks = [self._select_group(group, tokens, proposals, count) for group in range(groups)]
        logits, boxes, selected = (torch.cat(parts, dim=1) for parts in zip(*picks, strict=True))
        return {"pred_logits": logits, "pred_boxes": boxes}, selected

    def _select_group(
        self, group: int, tokens: Float[Tensor, "B S D"], proposals: Float[Tensor, "B S 4"], count: int
    ) -> tuple[Float[Tensor, "B Q C"], Float[Tensor, "B Q 4"], Float[Tensor, "B Q D"]]:
        features = self.enc_output_norm[group](self.enc_output[group](tokens))
        logits = self.enc_out_class_embed[group](features)
        best = logits.amax(dim=-1).topk(count, dim=1).indices.unsqueeze(-1)

        def pick(rows: Float[Tensor, "B S N"]) -> Float[Tensor, "B Q N"]:
            return rows.gather(1, best.expand(-1, -1, rows.shape[-1]))

        selected = pick(features)
        deltas = self.enc_out_bbox_embed[group](selected)
        return pick(logits), apply_deltas(deltas.float(), pick(proposals)), selected

    def forward(
        self,
        memory: Memory,
        query_feat: Float[Tensor, "rows D"],
        refpoint_embed: Float[Tensor, "rows 4"],
        groups: int,
    ) -> tuple[list[Float[Tensor, "B GQ D"]], Float[Tensor, "B GQ 4"], LayerOutputs, Float[Tensor, "B GQ D"]]:
        """Query states per decoder layer, their reference boxes (cxcywh), the encoder's predictions and their tokens.

        The learned queries and boxes belong to ranks: the n-th row of a group goes with its n-th best token.
        """
        enc_outputs, tokens = self.select(memory, groups)
        first_boxes = enc_outputs["pred_boxes"].detach()
        count = first_boxes.shape[1] // groups
        reference = apply_deltas(self._rows(refpoint_embed, groups, count), first_boxes)
        tgt = self._rows(query_feat, groups, count).expand(memory.tokens.shape[0], -1, -1)
        return self.decoder(tgt, reference, memory, groups), reference, enc_outputs, tokens

    def _rows(self, embedding: Float[Tensor, "rows N"], groups: int, count: int) -> Float[Tensor, "{groups}*{count} N"]:
        """The first `count` rows of each of the first `groups` groups."""
        return embedding.view(-1, self.num_queries, embedding.shape[-1])[:groups, :count].flatten(0, 1)
