"""Processes that load images: what they run, and what is said of one that ends by itself."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch.utils.data import get_worker_info

from rfdetr import RFDETR, TrainingError
from rfdetr.classes import ClassTable
from rfdetr.data.synthetic import draw_dataset
from rfdetr.models.detector import Detector
from rfdetr.weights.checkpoint import Checkpoint, save_checkpoint

from .training.tiny import TINY

NAMES = ("circle", "rectangle", "triangle", "star")
SCRIPT = """
import multiprocessing
multiprocessing.set_start_method({method!r}, force=True)
from rfdetr import RFDETR
print("run")
def same(image, boxes, labels, masks):
    return image, boxes, labels, masks
"""
TRAINING = """RFDETR.from_checkpoint("tiny.pth", device="cpu").train(
    dataset_dir=".", output_dir="output", epochs=1, batch_size=4, grad_accum_steps=1, multi_scale=False, num_workers=1,
    tensorboard=False, sample_interval=0, use_ema=False{further}
)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("processes")
    draw_dataset(path, train_images=4, seed=0)
    save_checkpoint(
        path / "tiny.pth", Checkpoint(Detector(TINY).state_dict(), TINY, ClassTable.from_categories(enumerate(NAMES)))
    )
    return path


def run_script(folder: Path, script: str) -> subprocess.CompletedProcess[str]:
    (folder / "script.py").write_text(script)
    return subprocess.run(
        [sys.executable, "script.py"], cwd=folder, capture_output=True, text=True, check=False, timeout=120
    )


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_where_python_does_not_fork_they_do_not_run_the_script_again(folder: Path, method: str) -> None:
    """As on macOS and Windows, and on Linux from Python 3.14 on."""
    ended = run_script(folder, SCRIPT.format(method=method) + TRAINING.format(further=""))
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines().count("run") == 1


def test_a_function_of_the_script_is_found_by_running_what_is_not_below_main(folder: Path) -> None:
    guarded = 'if __name__ == "__main__":\n    ' + TRAINING.format(further=", augment=same")
    ended = run_script(folder, SCRIPT.format(method="spawn") + guarded)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines().count("run") > 1


class Deadly:
    """Samples at which a loader process ends."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> tuple[Any, Any, Any]:
        if get_worker_info() is not None:
            os._exit(3)
        return np.zeros((32, 32, 3), np.uint8), [[1.0, 2.0, 20.0, 30.0]], [NAMES[index % 4]]


def test_one_that_ends_by_itself_is_an_error_that_says_what_to_do(folder: Path) -> None:
    model = RFDETR.from_checkpoint(folder / "tiny.pth", device="cpu")
    with pytest.raises(TrainingError, match=r"loads images has ended: DataLoader worker .*a smaller num_workers, or"):
        model.evaluate(dataset_dir={"valid": Deadly()}, split="valid", num_workers=1)
