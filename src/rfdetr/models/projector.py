"""Four feature maps of the ViT -> one map per decoder level (the C2f block of YOLOv8, with layer norms)."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from rfdetr.config.model import PROJECTOR_SCALES


class ChannelLayerNorm(nn.Module):
    """Layer norm over the channels of a feature map."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C h w"]:
        channels_last = x.permute(0, 2, 3, 1)
        return F.layer_norm(channels_last, self.weight.shape, self.weight, self.bias, eps=1e-6).permute(0, 3, 1, 2)


class ConvNorm(nn.Module):
    """Convolution without bias, norm, activation. The norm is called `bn` in the published weights."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, activation: nn.Module, stride: int = 1
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2, bias=False)
        self.bn = ChannelLayerNorm(out_channels)
        self.activation = activation

    def forward(self, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B D ..."]:
        out: Tensor = self.activation(self.bn(self.conv(x)))
        return out


class Bottleneck(nn.Module):
    """Two 3x3 convolutions, without a shortcut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.cv1 = ConvNorm(channels, channels, 3, nn.SiLU())
        self.cv2 = ConvNorm(channels, channels, 3, nn.SiLU())

    def forward(self, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C h w"]:
        out: Tensor = self.cv2(self.cv1(x))
        return out


class C2f(nn.Module):
    """Split in two halves, refine the second three times, join everything that came up on the way."""

    def __init__(self, in_channels: int, out_channels: int, depth: int = 3) -> None:
        super().__init__()
        half = out_channels // 2
        self.cv1 = ConvNorm(in_channels, 2 * half, 1, nn.SiLU())
        self.cv2 = ConvNorm((2 + depth) * half, out_channels, 1, nn.SiLU())
        self.m = nn.ModuleList(Bottleneck(half) for _ in range(depth))

    def forward(self, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B D h w"]:
        parts = list(self.cv1(x).chunk(2, dim=1))
        for bottleneck in self.m:
            parts.append(bottleneck(parts[-1]))
        out: Tensor = self.cv2(torch.cat(parts, dim=1))
        return out


def _sampler(scale: float, channels: int) -> tuple[nn.Sequential, int]:
    """Brings a feature map to the scale of a level; returns the channels it leaves, too."""
    if scale == 2.0:
        return nn.Sequential(nn.ConvTranspose2d(channels, channels // 2, kernel_size=2, stride=2)), channels // 2
    if scale == 0.5:
        return nn.Sequential(ConvNorm(channels, channels, 3, nn.ReLU(), stride=2)), channels
    return nn.Sequential(), channels


class Projector(nn.Module):
    """Per level: resample every feature map, concatenate, C2f, norm."""

    def __init__(self, in_channels: int, num_features: int, out_channels: int, levels: tuple[str, ...]) -> None:
        super().__init__()
        self.stages_sampling = nn.ModuleList()
        self.stages = nn.ModuleList()
        for level in levels:
            samplers = [_sampler(PROJECTOR_SCALES[level], in_channels) for _ in range(num_features)]
            self.stages_sampling.append(nn.ModuleList(sampler for sampler, _ in samplers))
            joined = sum(channels for _, channels in samplers)
            self.stages.append(nn.Sequential(C2f(joined, out_channels), ChannelLayerNorm(out_channels)))

    def forward(self, features: list[Float[Tensor, "B D h w"]]) -> list[Float[Tensor, "B C ..."]]:
        levels = []
        for samplers, stage in zip(self.stages_sampling, self.stages, strict=True):
            sampled = [sampler(feature) for sampler, feature in zip(samplers.children(), features, strict=True)]
            levels.append(stage(torch.cat(sampled, dim=1)))
        return levels
