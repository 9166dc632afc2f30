import subprocess
import sys
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_post_hook

from rfdetr.errors import TrainingError
from rfdetr.models.detector import Detector
from rfdetr.training.module import by_kind

from ..data.tiny_coco import CAT_AND_DOG, annotation, image, write_coco
from .tiny import STILL, TINY, recorded_gradients, train_tiny

REPOSITORY = Path(__file__).resolve().parents[2]


def gradients_of(dataset_dir: Path, output_dir: Path, **settings: Any) -> list[Tensor]:
    with recorded_gradients() as gradients:
        train_tiny(dataset_dir, output_dir, **{**STILL, **settings})
    return gradients


def assert_close(gradients: list[Tensor], expected: list[Tensor]) -> None:
    assert len(gradients) == len(expected) == 5
    for gradient, other in zip(gradients, expected, strict=True):
        assert other.norm() > 0
        assert (gradient - other).norm() < 1e-5 * other.norm()


@pytest.fixture(scope="module")
def half_empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two pictures under four names each; of the second no object is known."""
    folder = tmp_path_factory.mktemp("half_empty")
    images = [image(number, file_name=f"{1 + number % 2}.png") for number in range(8)]
    boxes = [[5, 5, 20, 20], [10, 20, 30, 10], [2, 3, 50, 30], [30, 10, 20, 25], [0, 0, 9, 9]]
    objects = [
        annotation(number, image_id=2 * (number % 4), bbox=box, category_id=CAT_AND_DOG[number % 2]["id"])
        for number, box in enumerate(boxes)
    ]
    write_coco(folder, "train", images, objects)
    return write_coco(folder, "valid")


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


def test_two_processes_give_the_gradient_of_one(half_empty: Path, tmp_path: Path) -> None:
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-m", "tests.training.two_processes", str(half_empty), str(tmp_path)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["RF-DETR", "epoch"]  # said once
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    assert first["val/loss"] == second["val/loss"]
    seed = yaml.safe_load((tmp_path / "settings.yaml").read_text())["seed"]  # one of them has drawn it
    expected = gradients_of(half_empty, tmp_path / "one", batch_size=4, seed=seed)
    assert_close(first["gradients"], expected)
    assert_close(second["gradients"], expected)


@pytest.mark.parametrize("limit", [0.1, 2.0])
def test_the_gradient_norm_is_clipped(
    limit: float, half_empty: Path, tmp_path: Path, whole_steps: list[Tensor]
) -> None:
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
