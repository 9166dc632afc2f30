import math
from collections.abc import Callable

import pytest
import torch

from rfdetr.models.losses import giou_loss, iou_aware_bce, l1_loss, mask_ce_loss, mask_dice_loss

ONE = torch.tensor(1.0)


def positives(*rows: tuple[int, int, int]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    images, queries, classes = torch.tensor(rows, dtype=torch.int64).view(-1, 3).unbind(dim=1)
    return images, queries, classes


def test_classification_entry_by_entry() -> None:
    torch.manual_seed(0)
    logits = 3 * torch.randn(2, 3, 4, dtype=torch.float64)
    matched = {(0, 1, 2): 0.8, (1, 0, 0): 0.3}
    expected = 0.0
    for index in torch.cartesian_prod(torch.arange(2), torch.arange(3), torch.arange(4)).tolist():
        prob = logits[tuple(index)].sigmoid().item()
        if tuple(index) in matched:
            target = max(prob**0.25 * matched[tuple(index)] ** 0.75, 0.01)
            expected -= target * math.log(prob) + (1 - target) * math.log(1 - prob)
        else:
            expected -= prob**2 * math.log(1 - prob)
    overlaps = torch.tensor([*matched.values()], dtype=torch.float64)
    loss = iou_aware_bce(logits, positives(*matched), overlaps, torch.tensor(5.0))
    assert loss.item() == pytest.approx(expected / 5)


def test_a_match_without_overlap_still_counts_as_a_hundredth() -> None:
    logits = torch.zeros(1, 1, 1)
    loss = iou_aware_bce(logits, positives((0, 0, 0)), torch.zeros(1), ONE)
    assert loss.item() == pytest.approx(math.log(2))  # 0.01 log 2 + 0.99 log 2


def test_the_target_is_not_trained_but_the_weight_of_a_negative_is() -> None:
    logits = torch.tensor([[[0.3, 0.7]]], dtype=torch.float64, requires_grad=True)
    overlap = torch.tensor([0.6], dtype=torch.float64, requires_grad=True)
    iou_aware_bce(logits, positives((0, 0, 0)), overlap.detach(), ONE).backward()
    assert logits.grad is not None
    prob, other = logits.detach().sigmoid()[0, 0].tolist()
    target = prob**0.25 * 0.6**0.75
    assert logits.grad[0, 0, 0].item() == pytest.approx(prob - target)
    # d/dx of -p^2 log(1 - p) with p = sigmoid(x)
    trained = -2 * other**2 * (1 - other) * math.log(1 - other) + other**3
    assert logits.grad[0, 0, 1].item() == pytest.approx(trained)


@pytest.mark.parametrize("logit", [-1e4, -100.0, 100.0, 1e4])
def test_extreme_logits_give_finite_losses_and_gradients(logit: float) -> None:
    logits = torch.full((1, 2, 2), logit, requires_grad=True)
    loss = iou_aware_bce(logits, positives((0, 0, 0)), torch.tensor([0.5]), ONE)
    loss.backward()
    assert loss.isfinite()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_without_matches_everything_is_a_negative() -> None:
    logits = torch.zeros(1, 2, 3, requires_grad=True)
    loss = iou_aware_bce(logits, positives(), torch.zeros(0), ONE)
    loss.backward()
    assert loss.item() == pytest.approx(6 * 0.25 * math.log(2))
    assert logits.grad is not None
    assert (logits.grad > 0).all()


@pytest.mark.parametrize("box_loss", [l1_loss, giou_loss])
def test_no_matches_cost_nothing_and_still_have_a_gradient(box_loss: Callable[..., torch.Tensor]) -> None:
    boxes = torch.zeros(0, 4, requires_grad=True)
    loss = box_loss(boxes, torch.zeros(0, 4), ONE)
    loss.backward()
    assert loss == 0
    assert boxes.grad is not None


def test_l1_is_summed_over_sides_and_pairs_and_divided_by_objects() -> None:
    boxes = torch.tensor([[0.1, 0.2, 0.3, 0.4], [0, 0, 1, 1]])
    truth = torch.tensor([[0.2, 0.2, 0.2, 0.8], [0, 0, 1, 1]])
    assert l1_loss(boxes, truth, torch.tensor(2.0)).item() == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("box", "loss"),
    [
        pytest.param([0, 0, 1, 1], 0, id="equal"),
        pytest.param([0, 0, 1, 0.5], 0.5, id="half inside"),
        pytest.param([1, 0, 2, 1], 1, id="touching"),
        pytest.param([3, 0, 4, 1], 1.5, id="apart: the hull is twice the union"),
    ],
)
def test_giou_loss(box: list[float], loss: float) -> None:
    unit = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
    assert giou_loss(torch.tensor([box]).float(), unit, ONE).item() == pytest.approx(loss)


def test_mask_cross_entropy_is_a_mean_over_points_and_a_sum_over_masks() -> None:
    logits, masks = torch.tensor([[0.0, 2.0], [1.0, -3.0]]), torch.tensor([[1.0, 1.0], [0.0, 0.0]])
    per_point = -(masks * logits.sigmoid().log() + (1 - masks) * (1 - logits.sigmoid()).log())
    expected = per_point.mean(dim=1).sum() / 4
    torch.testing.assert_close(mask_ce_loss(logits, masks, torch.tensor(4.0)), expected)


@pytest.mark.parametrize(
    ("logits", "masks", "loss"),
    [
        pytest.param([50.0, -50.0], [1.0, 0.0], 0.0, id="right"),
        pytest.param([-50.0, 50.0], [1.0, 0.0], 1 - 1 / 3, id="wrong, smoothed by 1"),
        pytest.param([-50.0, -50.0], [0.0, 0.0], 0.0, id="both empty"),
        pytest.param([0.0, 0.0], [1.0, 1.0], 1 - 3 / 4, id="unsure"),
    ],
)
def test_dice(logits: list[float], masks: list[float], loss: float) -> None:
    found = mask_dice_loss(torch.tensor([logits]), torch.tensor([masks]), torch.tensor(1.0))
    assert found.item() == pytest.approx(loss, abs=1e-6)
