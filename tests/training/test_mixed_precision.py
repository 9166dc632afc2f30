"""Mixed precision as GPUs have it: there torch's autocast leaves more in float32 than on the CPU."""

from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from torch import nn

from rfdetr.config.model import ModelConfig, ModelSettings
from rfdetr.lifecycle import Model, train_model
from rfdetr.models.detector import Detector
from rfdetr.training.state import Progress
from rfdetr.training.step import TrainingStep
from rfdetr.types import ImageBatch, Target

from ..as_on_gpu import AsOnGPU
from ..tiny import TINY, TINY_SEG, random_mask_targets, random_targets
from .tiny import CPU, tiny_config


@pytest.mark.parametrize("model", [pytest.param(TINY, id="boxes"), pytest.param(TINY_SEG, id="masks")])
def test_a_run_is_trained_and_evaluated(model: ModelConfig, shapes: Path, tmp_path: Path) -> None:
    losses, gpu = [], AsOnGPU()
    for name, rules in (("plain", nullcontext()), ("gpu", gpu)):
        config = tiny_config(shapes, tmp_path / name, device="cpu", precision="bf16")
        with rules:
            _, result = train_model(Model(Detector(model), None, CPU), ModelSettings(), config)
        losses.append([result.history[-1][key] for key in ("train/loss", "val/loss")])
    assert {"layer_norm", "sum", *(("interpolate",) if model.segmentation_head else ())} <= gpu.changed
    assert losses[0] == pytest.approx(losses[1], rel=0.05)


@pytest.mark.parametrize(
    ("model", "targets"),
    [
        pytest.param(TINY, random_targets([3, 2]), id="boxes"),
        pytest.param(TINY_SEG, random_mask_targets([3, 2]), id="masks"),
    ],
)
def test_of_half_precision_steps_that_overflow_are_left_out(
    model: ModelConfig, targets: list[Target], tmp_path: Path
) -> None:
    step = TrainingStep(Detector(model).train(), tiny_config(tmp_path, tmp_path), Progress(0, 8, 2), 100, CPU)
    step.dtype, step.scaler = torch.float16, torch.amp.GradScaler("cpu", init_scale=2.0**30)
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    weights = [nn.utils.parameters_to_vector(step.detector.parameters())]
    with AsOnGPU():
        while step.scaler.get_scale() == 2.0 ** (30 - step.progress.step):
            step([ImageBatch(images, targets)])
            weights.append(nn.utils.parameters_to_vector(step.detector.parameters()))
    *left_out, last = weights
    assert len(left_out) > 2
    assert all(torch.equal(each, weights[0]) for each in left_out)
    assert not torch.equal(last, weights[0])
    assert last.isfinite().all()
