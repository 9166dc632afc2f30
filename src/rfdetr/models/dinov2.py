"""The parts of a DINOv2 vision transformer (arXiv:2304.07193): patch embedding and pre-norm blocks."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from rfdetr.models.attention import attend

LAYER_NORM_EPS = 1e-6


class PatchEmbedding(nn.Module):
    """Images -> tokens: patch projection, class token, position embedding."""

    def __init__(self, num_channels: int, width: int, patch_size: int, grid_size: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.grid_size = grid_size
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        # Part of the published weights; DINOv2 uses it in pretraining only.
        self.mask_token = nn.Parameter(torch.zeros(1, width))
        self.position_embeddings = nn.Parameter(torch.zeros(1, 1 + grid_size**2, width))
        # Named and shaped as in the published weights.
        self.projection = nn.Conv2d(num_channels, width, patch_size, stride=patch_size)

    def forward(
        self, images: Float[Tensor, "B N height width"]
    ) -> tuple[Float[Tensor, "1 1 D"], Float[Tensor, "B h w D"]]:
        """The class token, which is the same for all images, and the grid of patch tokens."""
        cls_position, positions = self.position_embeddings.split([1, self.grid_size**2], dim=1)
        # The convolution, whose patches do not overlap, as one product: on a CPU in bfloat16 a quarter faster.
        cells = images.unflatten(3, (-1, self.patch_size)).unflatten(2, (-1, self.patch_size)).permute(0, 2, 4, 1, 3, 5)
        patches = F.linear(cells.flatten(3), self.projection.weight.flatten(1), self.projection.bias)
        size_hw = (patches.shape[1], patches.shape[2])
        return self.cls_token + cls_position, patches + resize_positions(positions, self.grid_size, size_hw)


def resize_positions(
    positions: Float[Tensor, "1 S D"], grid_size: int, size_hw: tuple[int, int]
) -> Float[Tensor, "1 h w D"]:
    """Position embeddings of a square grid for a grid of another size (bicubic, antialiased, in float32)."""
    grid = positions.view(1, grid_size, grid_size, -1)
    if size_hw == (grid_size, grid_size):
        return grid
    # Antialiasing of this operator is missing on Apple's GPUs.
    antialias = positions.device.type != "mps"
    channels_first = grid.permute(0, 3, 1, 2).float()
    resized = F.interpolate(channels_first, size=size_hw, mode="bicubic", align_corners=False, antialias=antialias)
    return resized.permute(0, 2, 3, 1).to(positions.dtype)


class Attention(nn.Module):
    """Multi-head self-attention over the tokens of each row of the batch."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Float[Tensor, "B S D"]) -> Float[Tensor, "B S D"]:
        batch, tokens, width = x.shape
        qkv = self.qkv(x).view(batch, tokens, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        attended = attend(*qkv.unbind(0))
        out: Tensor = self.proj(attended.transpose(1, 2).reshape(batch, tokens, width))
        return out


class FeedForward(nn.Module):
    """Two linear layers with GELU between them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Float[Tensor, "*N D"]) -> Float[Tensor, "*N D"]:
        out: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return out


class Block(nn.Module):
    """Pre-norm transformer block with layer scale (arXiv:2103.17239) and stochastic depth (arXiv:1603.09382)."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.attn = Attention(width, num_heads)
        self.scale1 = nn.Parameter(torch.ones(width))
        self.norm2 = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.mlp = FeedForward(width)
        self.scale2 = nn.Parameter(torch.ones(width))
        self.drop_path = 0.0

    def forward(self, x: Float[Tensor, "R S D"], rows_joined: int = 1) -> Float[Tensor, "R S D"]:
        """`rows_joined` consecutive rows attend to each other as one sequence: 1 is windowed, all windows is global."""
        rows, tokens, width = x.shape
        joined = self.norm1(x).view(rows // rows_joined, rows_joined * tokens, width)
        x = x + self._drop(self.scale1 * self.attn(joined).view(rows, tokens, width))
        return x + self._drop(self.scale2 * self.mlp(self.norm2(x)))

    def _drop(self, branch: Float[Tensor, "R S D"]) -> Float[Tensor, "R S D"]:
        """Leave the branch out of a row with probability `drop_path`; the rows that keep it make up for the others."""
        if not self.training or self.drop_path == 0:
            return branch
        keep = 1 - self.drop_path
        kept = torch.rand(branch.shape[0], 1, 1, device=branch.device) < keep
        return branch * (kept.to(branch.dtype) / keep)
