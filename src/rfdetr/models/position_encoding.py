"""Sine encoding of boxes."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

TEMPERATURE = 10000.0


def encode_boxes(boxes: Float[Tensor, "*N 4"], dim: int) -> Float[Tensor, "*N 4*{dim}"]:
    """Cxcywh -> `dim` interleaved sines and cosines each, in the order y, x, w, h (DAB-DETR, arXiv:2201.12329)."""
    # A sine and its cosine have the same period.
    exponents = torch.arange(0, dim, 2, device=boxes.device) / dim
    periods: Tensor = TEMPERATURE**exponents
    x, y, w, h = boxes.unbind(-1)  # a list as index would be copied to the device, and the host would wait for it
    angles = torch.stack([y, x, w, h], dim=-1).unsqueeze(-1) * (2 * math.pi) / periods
    # Joined as rows, then transposed: OpenVINO takes four times as long to interleave single numbers.
    waves = torch.stack([angles.sin(), angles.cos()], dim=-2).transpose(-1, -2)
    return waves.flatten(-3)
