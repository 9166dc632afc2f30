from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rfdetr.models.mask_points import RandomPoints, logits_at, masks_at, unsure_points


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


def points_of(seed: int | None, image_ids: Sequence[int] = (0, 1)) -> RandomPoints:
    return RandomPoints(seed, image_ids, torch.device("cpu"))


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
    points = unsure_points(logits, [1, 1], 400, points_of(seed=0))
    assert points.shape == (2, 400, 2)
    distance = (points[..., 0] - 0.5).abs()
    # Of uniform candidates the 1/4 nearest to the middle are kept: those closer than 1/8.
    assert distance[:, :300].max() < 0.16
    assert 0.2 < distance[:, 300:].mean() < 0.3


def test_every_mask_has_points_of_its_own_and_none_without_masks() -> None:
    points = unsure_points(torch.zeros(2, 8, 8), [2, 0], 10, points_of(seed=0))
    assert not torch.equal(points[0], points[1])
    assert unsure_points(torch.zeros(0, 8, 8), [0, 0], 10, points_of(seed=0)).shape == (0, 10, 2)


def test_with_a_seed_points_depend_on_the_image_and_not_on_its_batch() -> None:
    together = points_of(seed=5, image_ids=[7, 8])
    shared, masks = together.shared(4), together.per_mask([2, 1], 4)
    alone = points_of(seed=5, image_ids=[8])
    assert torch.equal(alone.shared(4), shared)
    assert torch.equal(alone.per_mask([1], 4), masks[2:])
    other = points_of(seed=6, image_ids=[8])
    assert not torch.equal(other.shared(4), shared)
    assert not torch.equal(other.per_mask([1], 4), masks[2:])


def test_without_a_seed_points_come_from_the_global_generator() -> None:
    torch.manual_seed(3)
    first = points_of(seed=None).per_mask([1, 1], 4)
    torch.manual_seed(3)
    assert torch.equal(torch.rand(2, 4, 2), first)
