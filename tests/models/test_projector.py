import pytest
import torch

from rfdetr.models.projector import ChannelLayerNorm, Projector


@pytest.mark.parametrize(
    ("levels", "sizes"),
    [
        pytest.param(("P4",), [(6, 8)], id="the stride of the patches"),
        pytest.param(("P3", "P5"), [(12, 16), (3, 4)], id="twice as fine and twice as coarse"),
    ],
)
@torch.no_grad()
def test_one_map_per_level(levels: tuple[str, ...], sizes: list[tuple[int, int]]) -> None:
    projector = Projector(in_channels=8, num_features=3, out_channels=16, levels=levels)
    maps = projector([torch.randn(2, 8, 6, 8) for _ in range(3)])
    assert [tuple(level.shape) for level in maps] == [(2, 16, *size) for size in sizes]


@torch.no_grad()
def test_channels_are_normed_cell_by_cell() -> None:
    norm = ChannelLayerNorm(32)
    out = norm(5 + 3 * torch.randn(2, 32, 3, 4))
    assert torch.allclose(out.mean(dim=1), torch.zeros(2, 3, 4), atol=1e-6)
    assert torch.allclose(out.std(dim=1, correction=0), torch.ones(2, 3, 4), atol=1e-5)
