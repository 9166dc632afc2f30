from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_post_hook

from rfdetr.config.runs import TrainConfig
from rfdetr.errors import TrainingError
from rfdetr.models.detector import Detector
from rfdetr.training.state import Progress
from rfdetr.training.step import TrainingStep, by_kind

from .tiny import CPU, TINY, assert_close, gradients_of, train_tiny


@pytest.fixture(scope="module")
def whole_steps(half_empty: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Tensor]:
    """The gradients with four images in one forward pass."""
    return gradients_of(half_empty, tmp_path_factory.mktemp("whole"), batch_size=4, grad_accum_steps=1)


@pytest.mark.parametrize(("batch_size", "grad_accum_steps"), [(1, 4), (2, 2)])
def test_the_split_of_a_step_does_not_change_its_gradient(
    batch_size: int, grad_accum_steps: int, half_empty: Path, whole_steps: list[Tensor], tmp_path: Path
) -> None:
    gradients = gradients_of(half_empty, tmp_path, batch_size=batch_size, grad_accum_steps=grad_accum_steps)
    assert_close(gradients, whole_steps)


@pytest.mark.parametrize("limit", [0.1, 2.0])
def test_the_gradient_norm_is_clipped(
    limit: float, half_empty: Path, tmp_path: Path, whole_steps: list[Tensor]
) -> None:
    assert all(gradient.norm() > 1 for gradient in whole_steps)  # which are not clipped
    gradients = gradients_of(half_empty, tmp_path, clip_max_norm=limit)
    for gradient, unclipped in zip(gradients, whole_steps, strict=True):
        torch.testing.assert_close(gradient, unclipped * min(1, limit / unclipped.norm()), atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize(
    ("broken_after", "expected"),
    [
        pytest.param(1, r"epoch 1, step 2\).*precision='32'$", id="early"),
        pytest.param(4, r"epoch 1, step 5\).*precision='32'$", id="last step of the first epoch"),
        pytest.param(7, r"epoch 2, step 3\).*; the state after epoch 1 is in ", id="later"),
    ],
)
def test_a_loss_that_is_not_finite_ends_the_run(
    broken_after: int, expected: str, half_empty: Path, tmp_path: Path
) -> None:
    detector = Detector(TINY)
    steps = count(1)

    def break_weights(*_: Any) -> None:
        if next(steps) == broken_after:
            detector.query_feat.weight.data.fill_(torch.nan)

    hook = register_optimizer_step_post_hook(break_weights)
    try:
        with pytest.raises(TrainingError, match=f"the loss is no longer finite .{expected}"):
            train_tiny(half_empty, tmp_path, detector, epochs=2)
    finally:
        hook.remove()


def test_losses_are_reported_by_kind() -> None:
    names = ("loss_ce", "loss_bbox", "loss_ce_0", "loss_ce_1", "loss_ce_enc", "loss_bbox_0")
    losses = {name: torch.tensor(2.0**power) for power, name in enumerate(names)}
    assert by_kind(losses) == {"loss_ce": 1, "loss_bbox": 2, "loss_ce_aux": 4 + 8 + 16, "loss_bbox_aux": 32}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, {"lr": 0.5, "lr_encoder": 0.25 * 0.5**2}),
        ({"freeze_encoder": True}, {"lr": 0.5, "lr_encoder": 0.0}),
        ({"warmup_epochs": 1}, {"lr": 0.5 * 0.6, "lr_encoder": 0.25 * 0.5**2 * 0.6}),
    ],
    ids=["constant", "frozen", "warming up"],
)
def test_rates_are_those_of_the_last_step(settings: dict[str, Any], expected: dict[str, float]) -> None:
    rates = {"lr": 0.5, "lr_component_decay": 0.5}
    if "freeze_encoder" not in settings:
        rates["lr_encoder"] = 0.25
    config = TrainConfig.from_dict({"dataset_dir": "data", **rates, **settings})
    progress = Progress(seed=0, num_images=8, images_per_step=4, step=4)
    assert TrainingStep(Detector(TINY), config, progress, 5, CPU).rates() == pytest.approx(expected)
