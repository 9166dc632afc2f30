import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rfdetr.models.mask_points import logits_at, masks_at, unsure_points


def half_and_half(side: int) -> Tensor:
    """True in the left half."""
    return (torch.arange(side) < side // 2).expand(1, side, side)


@pytest.mark.parametrize(
    ("point", "value"),
    [
        pytest.param((0.125, 0.125), 0.0, id="centre of the first cell"),
        pytest.param((0.25, 0.125), 0.5, id="between the first and the second"),
        pytest.param((0.0, 0.125), 0.0, id="left of all centres"),
        pytest.param((1.0, 1.0), 15.0, id="the far corner"),
        pytest.param((0.125, 0.375), 4.0, id="x comes first, then y"),
    ],
)
def test_logits_are_read_between_cell_centres(point: tuple[float, float], value: float) -> None:
    logits = torch.arange(16.0).view(1, 1, 4, 4)
    assert logits_at(logits, torch.tensor([[point]])).item() == pytest.approx(value)


def test_masks_are_read_as_by_nearest_sampling() -> None:
    random = torch.Generator().manual_seed(0)
    masks = torch.rand(3, 7, 10, generator=random) > 0.5
    rows = torch.tensor([2, 0, 0, 1])
    points = torch.rand(4, 500, 2, generator=random)
    expected = F.grid_sample(
        masks[rows].float().unsqueeze(1),
        (2 * points - 1).unsqueeze(2),
        mode="nearest",
        padding_mode="border",
        align_corners=False,
    )
    assert torch.equal(masks_at(masks, rows, points), expected[:, 0, :, 0])


def test_the_border_belongs_to_the_mask() -> None:
    corners = torch.tensor([[[0.0, 0.0], [1.0, 1.0], [0.499, 0.5], [0.501, 0.5]]])
    assert masks_at(half_and_half(8), torch.tensor([0]), corners).tolist() == [[1, 0, 1, 0]]


def test_three_quarters_of_the_points_lie_where_the_prediction_is_unsure() -> None:
    # Logits rise from left to right and pass 0 in the middle.
    logits = torch.linspace(-10, 10, 64).expand(2, 64, 64)
    torch.manual_seed(0)
    points = unsure_points(logits, count=400)
    assert points.shape == (2, 400, 2)
    distance = (points[..., 0] - 0.5).abs()
    # Of uniform candidates the 1/4 nearest to the middle are kept: those closer than 1/8.
    assert distance[:, :300].max() < 0.16
    assert 0.2 < distance[:, 300:].mean() < 0.3


def test_every_mask_has_points_of_its_own_and_none_without_masks() -> None:
    torch.manual_seed(0)
    points = unsure_points(torch.zeros(2, 8, 8), count=10)
    assert not torch.equal(points[0], points[1])
    assert unsure_points(torch.zeros(0, 8, 8), count=10).shape == (0, 10, 2)
