import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rfdetr.models.backbone import WindowedViT
from rfdetr.models.detector import Detector
from rfdetr.models.dinov2 import PatchEmbedding, resize_positions
from tests.tiny import TINY


@pytest.fixture(scope="module")
def vit() -> WindowedViT:
    return Detector(TINY).eval().backbone.vit


@torch.no_grad()
def test_a_feature_comes_from_just_before_the_block_that_sees_the_whole_image(vit: WindowedViT) -> None:
    """Stages 1 and 3; blocks 1 and 3 (from 0) are global: what changes in one window stays there in the first only."""
    image = torch.randn(1, 3, 64, 64)
    changed = image.clone()
    changed[..., :32, :32] += 1
    first, second = ((a - b).abs().amax(dim=1)[0] > 1e-7 for a, b in zip(vit(image), vit(changed), strict=True))
    assert first[:4, :4].all()
    assert not first[4:].any()
    assert not first[:, 4:].any()
    assert second.all()


@pytest.mark.parametrize("size", [(16, 16), (64, 64), (32, 80), (96, 48)], ids=str)
@torch.no_grad()
def test_features_have_one_cell_per_patch(vit: WindowedViT, size: tuple[int, int]) -> None:
    height, width = size
    shapes = [feature.shape for feature in vit(torch.randn(2, 3, *size))]
    assert shapes == [(2, TINY.encoder_width, height // 8, width // 8)] * 2


def test_a_patch_is_projected_as_by_the_published_convolution() -> None:
    embedding = PatchEmbedding(num_channels=4, width=5, patch_size=8, grid_size=4)
    images = torch.randn(2, 4, 32, 48)
    _, tokens = embedding(images)
    torch.testing.assert_close(tokens, embedding.projection(images).permute(0, 2, 3, 1))


def test_stochastic_depth_rises_from_block_to_block() -> None:
    vit = Detector(TINY).backbone.vit
    vit.set_drop_path(0.3)
    assert [block.drop_path for block in vit.blocks] == pytest.approx([0, 0.1, 0.2, 0.3])


def test_position_embeddings_of_the_stored_grid_are_used_as_they_are() -> None:
    positions = torch.randn(1, 64, 5)
    assert torch.equal(resize_positions(positions, 8, (8, 8)), positions.view(1, 8, 8, 5))


def resized(grid: Tensor, size_hw: tuple[int, int]) -> Tensor:
    channels_first = grid.view(1, 8, 8, 5).permute(0, 3, 1, 2)
    return F.interpolate(channels_first, size_hw, mode="bicubic", antialias=True).permute(0, 2, 3, 1)


@pytest.mark.parametrize(
    "size_hw",
    [
        pytest.param((12, 12), id="finer"),
        pytest.param((4, 6), id="coarser"),
        pytest.param((4, 16), id="as many patches in another shape"),
    ],
)
def test_position_embeddings_of_another_grid_are_interpolated(size_hw: tuple[int, int]) -> None:
    positions = torch.randn(1, 64, 5)
    assert torch.allclose(resize_positions(positions, 8, size_hw), resized(positions, size_hw), atol=1e-6)
