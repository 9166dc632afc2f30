"""Runs that end before their time, and go on."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.optim.optimizer import register_optimizer_step_post_hook

from rfdetr.errors import Interrupted
from rfdetr.models.detector import Detector
from rfdetr.weights.checkpoint import load_checkpoint

from .tiny import tiny_detector, train_tiny

# Everything random at once, and everything that has a memory: after four epochs of six the run ends by itself. The best
# weights are those of the second epoch, the best average is that of the third.
EVERYTHING: dict[str, Any] = {
    "epochs": 6,
    "batch_size": 2,
    "grad_accum_steps": 2,
    "seed": 1,
    "lr": 2e-3,
    "lr_scheduler": "cosine",
    "warmup_epochs": 0.5,
    "drop_path": 0.2,
    "multi_scale": True,
    "augment": "default",
    "ema_decay": 0.9,
    "ema_tau": 5,
    "checkpoint_interval": 1,
    "skip_best_epochs": 1,
    "early_stopping": True,
    "early_stopping_patience": 2,
    "early_stopping_min_delta": 0.05,
}
TWO_EPOCHS: dict[str, Any] = {
    name: value for name, value in EVERYTHING.items() if not name.startswith("early_stopping")
} | {"epochs": 2}
STEPS_PER_EPOCH = 5


class PowerCutError(Exception):
    """Ends a run without a chance to save."""


def cut_power() -> None:
    raise PowerCutError


def terminate() -> None:
    signal.raise_signal(signal.SIGTERM)


@contextmanager
def after_steps(*numbers: int, end: Callable[[], None] = terminate) -> Iterator[None]:
    """End the run inside with these optimiser steps, counted from the first one that is taken in here."""
    steps = count(1)

    def look(*_: Any) -> None:
        if next(steps) in numbers:
            end()

    hook = register_optimizer_step_post_hook(look)
    try:
        yield
    finally:
        hook.remove()


@contextmanager
def in_evaluations(*numbers: int) -> Iterator[None]:
    """Terminate the run inside with these forward passes of evaluations."""
    passes = count(1)

    def look(module: nn.Module, _: Any) -> None:
        if isinstance(module, Detector) and not module.training and next(passes) in numbers:
            terminate()

    hook = register_module_forward_pre_hook(look)
    try:
        yield
    finally:
        hook.remove()


def train_on(dataset_dir: Path, output_dir: Path, **settings: Any) -> list[int | None]:
    """Train and go on until the run is done; the exit statuses on the way, None for a cut of power.

    As in a new process, a run that goes on begins with other weights.
    """
    ends: list[int | None] = []
    while True:
        is_resumed = (output_dir / "checkpoint.pth").exists()
        detector = tiny_detector(2, seed=int(is_resumed))
        try:
            train_tiny(dataset_dir, output_dir, detector, **{"resume": "auto", **settings})
        except Interrupted as end:
            ends.append(int(str(end.code)))
        except PowerCutError:
            ends.append(None)
        else:
            return ends


def assert_same(a: Any, b: Any) -> None:
    """Equal to the last bit, through nested containers."""
    assert type(a) is type(b)
    if isinstance(a, Tensor):
        assert torch.equal(a, b)
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for left, right in zip(a, b, strict=True):
            assert_same(left, right)
    else:
        assert a == b


def assert_same_files(folder: Path, other: Path) -> None:
    """Two runs have left the same: weights, state, metrics."""
    names = sorted(path.name for path in folder.iterdir())
    assert names == sorted(path.name for path in other.iterdir())
    for name in names:
        if name.endswith(".pth"):
            one, two = load_checkpoint(folder / name), load_checkpoint(other / name)
            assert_same(one.weights, two.weights)
            assert_same(one.run, two.run)
        elif name.startswith("metrics"):
            assert (folder / name).read_text() == (other / name).read_text()
