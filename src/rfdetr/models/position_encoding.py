"""Sine encoding of boxes."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

TEMPERATURE = 10000.0


def encode_boxes(boxes: Float[Tensor, "*N 4"], dim: int) -> Float[Tensor, "*N 4*{dim}"]:
    """Cxcywh -> `dim` interleaved sines and cosines each, in the order y, x, w, h (DAB-DETR, arXiv:2201.12329)."""
    exponents = 2 * torch.div(torch.arange(dim, device=boxes.device), 2, rounding_mode="floor") / dim
    periods: Tensor = TEMPERATURE**exponents
    x, y, w, h = boxes.unbind(-1)  # a list as index would be copied to the device, and the host would wait for it
    angles = torch.stack([y, x, w, h], dim=-1).unsqueeze(-1) * (2 * math.pi) / periods
    waves = torch.stack([angles[..., 0::2].sin(), angles[..., 1::2].cos()], dim=-1)
    return waves.flatten(-3)
