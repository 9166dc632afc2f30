"""Initial values of weights that no checkpoint gives."""

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from rfdetr.models.deformable_attention import DeformableAttention
from rfdetr.models.mlp import MLP

if TYPE_CHECKING:
    from rfdetr.models.detector import Detector

# A class is first expected with this probability (focal loss, arXiv:1708.02002, section 4.1).
PRIOR = 0.01
VIT_STD = 0.02


@torch.no_grad()
def initialize(detector: "Detector") -> None:
    """All of them; layers not named here keep torch's own initial values."""
    transformer = detector.transformer
    for parameter in transformer.parameters():
        if parameter.dim() > 1:
            nn.init.xavier_uniform_(parameter)
    for module in transformer.modules():
        if isinstance(module, DeformableAttention):
            _initialize_deformable(module)
    nn.init.zeros_(detector.refpoint_embed.weight)
    _zero_last(detector.bbox_embed)
    for bbox_embed in transformer.enc_out_bbox_embed:
        bbox_embed.load_state_dict(detector.bbox_embed.state_dict())
    initialize_class_heads(detector)
    _initialize_vit(detector.backbone.vit)


@torch.no_grad()
def initialize_class_heads(detector: "Detector") -> None:
    """The class head with the prior as bias, and its copy in every query group."""
    head = detector.class_embed
    head.reset_parameters()
    nn.init.constant_(head.bias, -math.log((1 - PRIOR) / PRIOR))
    for copy in detector.transformer.enc_out_class_embed:
        copy.load_state_dict(head.state_dict())


def _zero_last(mlp: MLP) -> None:
    last = mlp.layers[-1]
    for parameter in last.parameters():
        nn.init.zeros_(parameter)


def _initialize_deformable(attention: DeformableAttention) -> None:
    """Heads look in different directions, their points ever farther out, all equally weighted."""
    nn.init.zeros_(attention.sampling_offsets.weight)
    directions = _directions(attention.num_heads)
    distance = torch.arange(1, attention.num_points + 1, dtype=torch.float32)
    offsets = directions[:, None, None, :] * distance[None, None, :, None]
    attention.sampling_offsets.bias.copy_(offsets.expand(-1, attention.num_levels, -1, -1).flatten())
    nn.init.zeros_(attention.attention_weights.weight)
    nn.init.zeros_(attention.attention_weights.bias)
    nn.init.zeros_(attention.value_proj.bias)
    nn.init.zeros_(attention.output_proj.bias)


def _directions(num_heads: int) -> Tensor:
    """Unit steps (largest component 1) around the circle, one per head."""
    angles = torch.arange(num_heads) * (2 * math.pi / num_heads)
    steps = torch.stack([angles.cos(), angles.sin()], dim=-1)
    return steps / steps.abs().amax(dim=-1, keepdim=True)


def _initialize_vit(vit: nn.Module) -> None:
    for module in vit.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            nn.init.trunc_normal_(module.weight, std=VIT_STD)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for name, parameter in vit.named_parameters():
        if name.endswith(("cls_token", "position_embeddings")):
            nn.init.trunc_normal_(parameter, std=VIT_STD)
