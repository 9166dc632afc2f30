"""Two-stage query selection in groups, then the decoder. There is no transformer encoder."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from rfdetr.boxes import apply_deltas
from rfdetr.config.model import ModelConfig
from rfdetr.models.decoder import Decoder
from rfdetr.models.grouped import grouped_linear, grouped_mlp, grouped_norm
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
        count = min(self.num_queries, tokens.shape[1])
        best = self._best_tokens(tokens, count, groups)
        batch, length, dim = tokens.shape
        # As rows of all images: on the CPU a tenth of the time of `gather` from tokens expanded to all groups.
        rows = best.transpose(0, 1) + length * torch.arange(batch, device=best.device).view(1, -1, 1, 1)
        chosen = tokens.flatten(0, 1).index_select(0, rows.flatten()).view(groups, -1, dim)
        features, logits = self._features_and_logits(chosen)
        deltas = grouped_mlp(features, self.enc_out_bbox_embed)
        logits, deltas, features = (
            part.unflatten(1, (batch, count)).transpose(0, 1).flatten(1, 2) for part in (logits, deltas, features)
        )
        places = proposals.expand(batch, -1, -1).unsqueeze(1).expand(-1, groups, -1, -1)
        places = places.gather(2, best.expand(-1, -1, -1, 4)).flatten(1, 2)
        return {"pred_logits": logits, "pred_boxes": apply_deltas(deltas.float(), places)}, features

    @torch.no_grad()
    def _best_tokens(self, tokens: Float[Tensor, "B S D"], count: int, groups: int) -> Int[Tensor, "B G {count} 1"]:
        """Indices, best first. No loss depends on the other tokens, so the chosen ones alone are gone through again."""
        _, logits = self._features_and_logits(tokens.flatten(0, 1).expand(groups, -1, -1))
        scores = logits.amax(dim=-1).unflatten(1, tokens.shape[:2]).transpose(0, 1)
        best: Tensor = scores.topk(count, dim=-1).indices
        return best.unsqueeze(-1)

    def _features_and_logits(
        self, tokens: Float[Tensor, "G N D"]
    ) -> tuple[Float[Tensor, "G N D"], Float[Tensor, "G N C"]]:
        features = grouped_norm(grouped_linear(tokens, self.enc_output), self.enc_output_norm)
        return features, grouped_linear(features, self.enc_out_class_embed)

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
        tgt = self._rows(query_feat, groups, count).unsqueeze(0)
        return self.decoder(tgt, reference, memory, groups), reference, enc_outputs, tokens

    def _rows(self, embedding: Float[Tensor, "rows N"], groups: int, count: int) -> Float[Tensor, "{groups}*{count} N"]:
        """The first `count` rows of each of the first `groups` groups."""
        return embedding.view(-1, self.num_queries, embedding.shape[-1])[:groups, :count].flatten(0, 1)
