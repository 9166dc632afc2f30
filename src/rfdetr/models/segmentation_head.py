"""One mask per query: the product of its own code and of the image's features (as in MaskFormer, arXiv:2107.06278)."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from rfdetr.types import MaskLogits

# Pixels of the input per cell of the mask grid, on each axis.
MASK_STRIDE = 4


class FeatureBlock(nn.Module):
    """ConvNeXt block (arXiv:2201.03545) with a 3x3 kernel and without its expansion."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(dim, dim, kernel_size=3, padding=1, groups=dim)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.pwconv1 = nn.Linear(dim, dim)

    def forward(self, x: Float[Tensor, "B D h w"]) -> Float[Tensor, "B D h w"]:
        channels_last = self.norm(self.dwconv(x).permute(0, 2, 3, 1))
        return x + F.gelu(self.pwconv1(channels_last)).permute(0, 3, 1, 2)


class QueryBlock(nn.Module):
    """Pre-norm feed-forward network with a residual connection."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm_in = nn.LayerNorm(dim)
        self.layers = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def forward(self, x: Float[Tensor, "B Q D"]) -> Float[Tensor, "B Q D"]:
        out: Tensor = x + self.layers(self.norm_in(x))
        return out


class SegmentationHead(nn.Module):
    """Mask logits of every decoder layer, and of the selected tokens of the encoder.

    The features pass one more block for each decoder layer; everything else is shared. They are not projected: in the
    product with a query's code the projection can as well be that of the code, and there are fewer codes than cells.
    """

    def __init__(self, dim: int, dec_layers: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(FeatureBlock(dim) for _ in range(dec_layers))
        self.spatial_features_proj = nn.Conv2d(dim, dim, kernel_size=1)
        self.query_features_block = QueryBlock(dim)
        self.query_features_proj = nn.Linear(dim, dim)
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(
        self,
        level: Float[Tensor, "B D _ _"],
        hs: list[Float[Tensor, "B Q D"]],
        tokens: Float[Tensor, "B Q D"],
        image_hw: tuple[int, int],
    ) -> tuple[list[MaskLogits], MaskLogits]:
        """Masks per decoder layer (states `hs`), and those of the encoder's `tokens`."""
        first, *features = self._features(level, image_hw)
        of_layers = [self._masks(own, states) for own, states in zip(features, hs, strict=True)]
        return of_layers, self._masks(first, tokens)

    def last(
        self, level: Float[Tensor, "B D _ _"], states: Float[Tensor, "B Q D"], image_hw: tuple[int, int]
    ) -> MaskLogits:
        """Masks of the last decoder layer alone."""
        return self._masks(self._features(level, image_hw)[-1], states)

    def _features(
        self, level: Float[Tensor, "B D _ _"], image_hw: tuple[int, int]
    ) -> list[Float[Tensor, "B D height width"]]:
        """At the size of masks: of the encoder, and after each block."""
        grid_hw = (image_hw[0] // MASK_STRIDE, image_hw[1] // MASK_STRIDE)
        features = [F.interpolate(level, grid_hw, mode="bilinear", align_corners=False)]
        for block in self.blocks:
            features.append(block(features[-1]))
        return features

    def _masks(self, features: Float[Tensor, "B D h w"], states: Float[Tensor, "B Q D"]) -> MaskLogits:
        codes = self.query_features_proj(self.query_features_block(states))
        projection = self.spatial_features_proj
        queries = F.linear(codes, projection.weight.flatten(1).T)
        return MaskLogits(features, queries, (codes * projection.bias).sum(dim=-1) + self.bias)
