"""A grid of tokens cut into equal windows, and back."""

from jaxtyping import Float
from torch import Tensor


def split_windows(grid: Float[Tensor, "B h w D"], num_windows: int) -> Float[Tensor, "B*{num_windows}**2 S D"]:
    """Cut into `num_windows` per axis. Windows of one image follow each other, row by row, as do tokens in a window."""
    batch, height, width, dim = grid.shape
    n = num_windows
    cut = grid.view(batch, n, height // n, n, width // n, dim)
    return cut.transpose(2, 3).reshape(batch * n * n, -1, dim)


def merge_windows(
    windows: Float[Tensor, "R S D"], num_windows: int, size_hw: tuple[int, int]
) -> Float[Tensor, "B h w D"]:
    """The inverse of `split_windows` for a grid of `size_hw` tokens."""
    (height, width), n = size_hw, num_windows
    cut = windows.view(-1, n, n, height // n, width // n, windows.shape[-1])
    return cut.transpose(2, 3).reshape(-1, height, width, windows.shape[-1])
