"""DINOv2 with windowed blocks, and the projector that turns its features into decoder levels."""

from collections.abc import Iterable
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from rfdetr.config.model import ModelConfig
from rfdetr.models.dinov2 import LAYER_NORM_EPS, Block, PatchEmbedding
from rfdetr.models.projector import Projector
from rfdetr.models.windows import merge_windows, split_windows


class WindowedViT(nn.Module):
    """A DINOv2 ViT whose blocks attend within windows, but for a few that attend to the whole image.

    Each window carries its own copy of the class token. The blocks that `out_feature_indexes` names (counted from 0)
    are global; features are taken after that many blocks, so that a feature comes from just before the global block.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.num_windows = config.num_windows
        self.feature_stages = config.out_feature_indexes
        self.gradient_checkpointing = False
        self.embeddings = PatchEmbedding(
            config.num_channels, config.encoder_width, config.patch_size, config.positional_encoding_size
        )
        self.blocks = nn.ModuleList(
            Block(config.encoder_width, config.encoder_heads) for _ in range(config.encoder_depth)
        )
        self.norm = nn.LayerNorm(config.encoder_width, eps=LAYER_NORM_EPS)

    def set_drop_path(self, rate: float) -> None:
        """Stochastic depth, rising linearly from 0 at the first block to `rate` at the last."""
        last = max(len(self.blocks) - 1, 1)
        for depth, block in enumerate(cast("Iterable[Block]", self.blocks)):
            block.drop_path = rate * depth / last

    def forward(self, images: Float[Tensor, "B N height width"]) -> list[Float[Tensor, "B D h w"]]:
        cls_token, grid = self.embeddings(images)
        size_hw = (grid.shape[1], grid.shape[2])
        windows = split_windows(grid, self.num_windows)
        x = torch.cat([cls_token.expand(windows.shape[0], -1, -1), windows], dim=1)
        features = []
        # Blocks after the last feature would change nothing.
        for index in range(max(self.feature_stages)):
            x = self._run_block(index, x)
            if index + 1 in self.feature_stages:
                patches = merge_windows(self.norm(x)[:, 1:], self.num_windows, size_hw)
                features.append(patches.permute(0, 3, 1, 2))
        return features

    def _run_block(self, index: int, x: Float[Tensor, "R S D"]) -> Float[Tensor, "R S D"]:
        rows_joined = self.num_windows**2 if index in self.feature_stages else 1
        block = self.blocks[index]
        if self.gradient_checkpointing and self.training:
            out: Tensor = checkpoint(block, x, rows_joined, use_reentrant=False)
        else:
            out = block(x, rows_joined)
        return out


class Backbone(nn.Module):
    """Images -> decoder levels."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.vit = WindowedViT(config)
        self.projector = Projector(
            in_channels=config.encoder_width,
            num_features=len(config.out_feature_indexes),
            out_channels=config.hidden_dim,
            levels=config.projector_scale,
        )

    def forward(self, images: Float[Tensor, "B N height width"]) -> list[Float[Tensor, "B C ..."]]:
        levels: list[Tensor] = self.projector(self.vit(images))
        return levels
