"""How often the host waits for the device in a training step: once per forward pass, for the assignment's costs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from rfdetr.config.model import ModelConfig
from rfdetr.models.detector import Detector
from rfdetr.training.state import Progress
from rfdetr.training.step import TrainingStep
from rfdetr.types import ImageBatch, Target

from ..tiny import TINY, TINY_SEG, random_mask_targets, random_targets
from .tiny import tiny_config

Waits = dict[str, list[str]]
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def waits() -> Waits:
    """Where the host has waited for a pretended device, by name of the work."""
    command = [sys.executable, "-m", "tests.training.pretend_device"]
    done = subprocess.run(  # noqa: S603
        command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found: Waits = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("kind", ["boxes", "masks"])
def test_a_step_waits_for_the_costs_of_the_assignment_alone(kind: str, waits: Waits) -> None:
    """In each of two micro-batches. Watched are copies, forward, losses, backward, optimiser and average."""
    assert [place.split(":")[0] for place in waits[kind]] == ["models/matcher.py"] * 2, waits[kind]


def test_every_kind_of_wait_is_counted(waits: Waits) -> None:
    counts = {name: len(places) for name, places in waits.items() if name.startswith("waits: ")}
    assert len(counts) == 18
    assert set(counts.values()) == {1}, counts


def test_nothing_else_is_counted(waits: Waits) -> None:
    counts = {name: len(places) for name, places in waits.items() if name.startswith("free: ")}
    assert len(counts) == 7
    assert set(counts.values()) == {0}, counts


def test_a_copy_begun_earlier_is_there_with_a_later_one(waits: Waits) -> None:
    assert len(waits["two copies"]) == 1


def test_a_tensor_of_the_host_between_those_of_the_device_is_an_error(waits: Waits) -> None:
    assert waits["mixed"] == ["refused"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("precision", ["32", "bf16", "fp16"])
@pytest.mark.parametrize(
    ("model", "targets"),
    [
        pytest.param(TINY, random_targets([3, 2]), id="boxes"),
        pytest.param(TINY_SEG, random_mask_targets([3, 2]), id="masks"),
    ],
)
def test_torch_sees_no_wait_on_a_gpu(model: ModelConfig, targets: list[Target], precision: str, tmp_path: Path) -> None:
    """It does not see the one for the assignment, which is for an event."""
    device = torch.device("cuda")
    config = tiny_config(tmp_path, tmp_path, precision=precision, clip_max_norm=0.1)
    batch = ImageBatch(torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8), targets)
    step = TrainingStep(Detector(model).to(device).train(), config, Progress(0, 8, 4), 2, device)
    step([batch, batch])  # makes the optimiser's state
    torch.cuda.set_sync_debug_mode("error")
    try:
        step([batch, batch])
    finally:
        torch.cuda.set_sync_debug_mode("default")
