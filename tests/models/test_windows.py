import pytest
import torch

from rfdetr.models.windows import merge_windows, split_windows


@pytest.mark.parametrize(
    ("height", "width", "num_windows"),
    [
        pytest.param(4, 4, 2, id="square"),
        pytest.param(4, 8, 2, id="wide"),
        pytest.param(12, 8, 4, id="tall, many windows"),
        pytest.param(3, 5, 1, id="one window"),
    ],
)
def test_merging_undoes_splitting(height: int, width: int, num_windows: int) -> None:
    grid = torch.randn(3, height, width, 2)
    windows = split_windows(grid, num_windows)
    assert windows.shape == (3 * num_windows**2, height * width // num_windows**2, 2)
    assert torch.equal(merge_windows(windows, num_windows, (height, width)), grid)


def test_windows_and_their_tokens_go_row_by_row_image_by_image() -> None:
    grid = torch.tensor([[0, 1, 2, 3], [4, 5, 6, 7]]).view(1, 2, 4, 1).float()
    windows = split_windows(torch.cat([grid, grid + 10]), num_windows=2)
    assert windows.squeeze(-1).tolist() == [[0, 1], [2, 3], [4, 5], [6, 7], [10, 11], [12, 13], [14, 15], [16, 17]]
