"""What training does before its first process starts, and what it leaves in the model."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rfdetr import RFDETR, ConfigError

from .data.tiny_coco import category
from .test_lifecycle import STILL, dataset, written


def test_a_folder_that_cannot_be_written_to_is_noticed_before_the_batch_size_is_tried(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = dataset(tmp_path / "data", [category(1, "bus")], 1)
    (tmp_path / "file").touch()
    model = RFDETR.from_checkpoint(written(tmp_path / "tiny.pth"), device="cpu")
    with pytest.raises(ConfigError, match=r"output_dir: \S*file cannot be made a folder: File exists"):
        model.train(dataset_dir=data, output_dir=tmp_path / "file", **{**STILL, "batch_size": "auto"})
    assert "batch_size" not in capsys.readouterr().out


def test_after_training_a_model_keeps_no_gradients(tmp_path: Path) -> None:
    data = dataset(tmp_path / "data", [category(1, "bus")], 1)
    model = RFDETR.from_checkpoint(written(tmp_path / "tiny.pth"), device="cpu")
    model.train(dataset_dir=data, output_dir=tmp_path / "run", **STILL)
    assert all(parameter.grad is None for parameter in model.detector.parameters())


class Locked:
    """A dataset that other processes cannot have."""

    def __init__(self) -> None:
        self.value_of: Callable[[int], int] = lambda index: index

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> tuple[Any, Any, Any]:
        return np.full((32, 32, 3), self.value_of(index), np.uint8), [[1.0, 2.0, 20.0, 30.0]], ["bus"]


def test_a_dataset_that_other_processes_cannot_have_is_named(tmp_path: Path) -> None:
    model = RFDETR.from_checkpoint(written(tmp_path / "tiny.pth"), device="cpu")
    with pytest.raises(ConfigError, match=r"devices: what is trained on cannot be given to other processes: .*lambda"):
        model.train(dataset_dir=Locked(), output_dir=tmp_path / "run", **STILL, devices=2, accelerator="cpu")
    assert next(model.detector.parameters()).device.type == "cpu"
