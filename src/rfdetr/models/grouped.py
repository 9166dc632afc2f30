"""The same layer for several groups, each with parameters of its own, in one operation instead of one per group.

Of the layers, the first are used, as many as there are groups in the input.
"""

from collections.abc import Iterable
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from rfdetr.models.mlp import MLP


def grouped_linear(x: Float[Tensor, "G N in"], layers: Iterable[nn.Module]) -> Float[Tensor, "G N out"]:
    """The n-th group through the n-th linear layer."""
    weights, biases = _stacked(layers, len(x))
    return torch.baddbmm(biases, x, weights.transpose(1, 2))  # OpenVINO knows no aten::mT


def grouped_norm(x: Float[Tensor, "G N D"], layers: Iterable[nn.Module]) -> Float[Tensor, "G N D"]:
    """The n-th group through the n-th layer norm."""
    weights, biases = _stacked(layers, len(x))
    return torch.addcmul(biases, F.layer_norm(x, x.shape[-1:]), weights.unsqueeze(1))


def grouped_mlp(x: Float[Tensor, "G N in"], networks: Iterable[nn.Module]) -> Float[Tensor, "G N out"]:
    """The n-th group through the n-th network."""
    *hidden, last = zip(*(network.layers for network in cast("Iterable[MLP]", networks)), strict=True)
    for layers in hidden:
        x = F.relu_(grouped_linear(x, layers))
    return grouped_linear(x, last)


def _stacked(layers: Iterable[nn.Module], groups: int) -> tuple[Float[Tensor, "G ..."], Float[Tensor, "G 1 out"]]:
    used = list(cast("Iterable[nn.Linear | nn.LayerNorm]", layers))[:groups]
    return torch.stack([layer.weight for layer in used]), torch.stack([layer.bias for layer in used]).unsqueeze(1)
