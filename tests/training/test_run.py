import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from rfdetr.cli.settings import read_configs
from rfdetr.config.model import ModelSettings
from rfdetr.config.runs import ModelChoice, TrainConfig
from rfdetr.data.layout import SPLITS
from rfdetr.data.reading import read_dataset
from rfdetr.errors import ConfigError
from rfdetr.training.run import TrainingResult, train
from rfdetr.weights.checkpoint import load_checkpoint

from .stops import assert_same
from .tiny import CPU, TINY, tiny_config, tiny_detector, train_tiny

# Everything random at once.
RANDOM: dict[str, Any] = {"multi_scale": True, "augment": "default", "drop_path": 0.2, "seed": 3}


@pytest.fixture(scope="module")
def finished(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainingResult:
    """Four epochs without augmentation, on all images in every step."""
    output_dir = tmp_path_factory.mktemp("finished")
    result, _ = train_tiny(
        shapes, output_dir, epochs=4, batch_size=8, augment="none", checkpoint_interval=2, tensorboard=True
    )
    return result


@pytest.fixture(scope="module")
def random_run(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of two epochs with everything that is random."""
    output_dir = tmp_path_factory.mktemp("random")
    train_tiny(shapes, output_dir, epochs=2, **RANDOM)
    return output_dir


def test_a_run_leaves_its_checkpoints_metrics_and_settings(finished: TrainingResult) -> None:
    assert {path.name for path in finished.output_dir.iterdir()} == {
        "checkpoint.pth",
        "checkpoint_2.pth",
        "checkpoint_4.pth",
        "checkpoint_best_ema.pth",
        "checkpoint_best_regular.pth",
        "checkpoint_best_total.pth",
        "metrics.csv",
        "metrics.json",
        "settings.yaml",
        "tensorboard",
    }
    assert finished.best_checkpoint == finished.output_dir / "checkpoint_best_total.pth"
    assert any("tfevents" in path.name for path in (finished.output_dir / "tensorboard").iterdir())


def test_the_loss_falls(finished: TrainingResult) -> None:
    train, valid = ([row[f"{split}/loss"] for row in finished.history] for split in ("train", "val"))
    assert train[-1] < train[0] - 0.5
    assert valid[-1] < valid[0]


def test_metrics_csv_has_a_row_per_epoch(finished: TrainingResult) -> None:
    with (finished.output_dir / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4"]
    assert [row["step"] for row in rows] == ["5", "10", "15", "20"]
    assert float(rows[-1]["train/loss"]) == finished.history[-1]["train/loss"]
    assert {"val/mAP_50_95", "val/ema_mAP_50_95", "val/AP/star", "train/lr", "train/lr_encoder"} <= rows[0].keys()
    assert not any("second" in name for name in rows[0])  # rows of equal runs are equal


def test_metrics_json_is_the_result(finished: TrainingResult) -> None:
    assert json.loads((finished.output_dir / "metrics.json").read_text()) == finished.metrics
    assert finished.metrics["num_images"] == 2


def test_the_settings_are_all_written_down(finished: TrainingResult) -> None:
    settings = yaml.safe_load((finished.output_dir / "settings.yaml").read_text())
    assert settings["epochs"] == 4
    assert settings["lr_drop"] == 100
    assert settings["seed"] == 0
    assert settings["model"] == "nano"
    assert settings["num_queries"] == TINY.num_queries


def test_checkpoints_tell_classes_model_and_settings(finished: TrainingResult) -> None:
    for name in ("checkpoint", "checkpoint_best_ema", "checkpoint_best_regular", "checkpoint_best_total"):
        checkpoint = load_checkpoint(finished.output_dir / f"{name}.pth")
        assert checkpoint.config == TINY
        assert checkpoint.classes is not None
        assert checkpoint.classes.names == ("circle", "rectangle", "triangle", "star")
        assert checkpoint.settings["epochs"] == 4
        assert checkpoint.run is not None
        assert ("optimizer" in checkpoint.run) == (name == "checkpoint")


def test_a_drawn_seed_is_recorded_and_gives_the_same_run(shapes: Path, tmp_path: Path) -> None:
    _, drawn = train_tiny(shapes, tmp_path / "drawn", seed=None)
    seed = yaml.safe_load((tmp_path / "drawn" / "settings.yaml").read_text())["seed"]
    _, given = train_tiny(shapes, tmp_path / "given", seed=seed)
    assert_same(drawn.state_dict(), given.state_dict())


def test_another_seed_gives_another_run(shapes: Path, tmp_path: Path) -> None:
    _, one = train_tiny(shapes, tmp_path / "one", seed=1)
    _, two = train_tiny(shapes, tmp_path / "two", seed=2)
    assert not torch.equal(one.class_embed.weight, two.class_embed.weight)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_one_seed_gives_one_run_for_any_number_of_workers(
    num_workers: int, random_run: Path, shapes: Path, tmp_path: Path
) -> None:
    torch.rand(3)  # the global random state does not matter
    train_tiny(shapes, tmp_path, epochs=2, num_workers=num_workers, **RANDOM)
    expected, again = (load_checkpoint(folder / "checkpoint.pth") for folder in (random_run, tmp_path))
    assert_same(again.weights, expected.weights)
    assert_same(again.run, expected.run)


def test_without_averaged_weights_there_is_no_file_of_them(shapes: Path, tmp_path: Path) -> None:
    result, detector = train_tiny(shapes, tmp_path, use_ema=False, compute_val_loss=False, log_per_class_metrics=False)
    assert not (tmp_path / "checkpoint_best_ema.pth").exists()
    assert not any("ema" in name or name.startswith("val/loss") or "AP/" in name for name in result.history[0])
    assert_same(load_checkpoint(result.best_checkpoint).weights, dict(detector.state_dict()))


def test_weights_that_never_score_are_kept_as_they_ended(shapes: Path, tmp_path: Path) -> None:
    result, detector = train_tiny(shapes, tmp_path, skip_best_epochs=1)
    assert_same(load_checkpoint(tmp_path / "checkpoint_best_regular.pth").weights, dict(detector.state_dict()))
    assert_same(load_checkpoint(result.best_checkpoint).weights, dict(detector.state_dict()))
    assert result.metrics["mAP_50_95"] == result.history[-1]["val/mAP_50_95"]


@pytest.mark.parametrize(("sample_interval", "epochs"), [(0, []), (2, [0, 2])])
def test_sheets_of_samples_come_every_few_epochs(
    sample_interval: int, epochs: list[int], shapes: Path, tmp_path: Path
) -> None:
    train_tiny(shapes, tmp_path, epochs=3, sample_interval=sample_interval)
    sheets = sorted((tmp_path / "samples").glob("*"))
    assert [sheet.name for sheet in sheets] == [f"epoch_{epoch:04}.jpg" for epoch in epochs]
    for sheet in sheets:
        Image.open(sheet).load()


def test_sheets_of_samples_show_pictures_of_floating_point_numbers(tmp_path: Path) -> None:
    """As torch datasets give them."""
    rng = np.random.default_rng(0)
    samples = [(torch.from_numpy(rng.random((3, 64, 64), np.float32)), [[5.0, 5, 40, 40]], [0]) for _ in range(4)]
    splits = read_dataset({"train": samples, "valid": samples}, SPLITS[:2]).usable().splits
    config = tiny_config(tmp_path, tmp_path, sample_interval=1)
    train(tiny_detector(1), splits["train"], splits["valid"], config, ModelSettings(), CPU)
    assert (tmp_path / "samples" / "epoch_0001.jpg").exists()


def test_evaluation_comes_every_few_epochs_and_at_the_end(shapes: Path, tmp_path: Path) -> None:
    result, _ = train_tiny(shapes, tmp_path, epochs=5, eval_interval=2, use_ema=False)
    assert ["val/mAP_50_95" in row for row in result.history] == [False, True, False, True, True]


def test_a_stalled_run_stops_early(shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frozen: dict[str, Any] = {"lr": 1e-9, "lr_encoder": 1e-9}
    result, _ = train_tiny(shapes, tmp_path, epochs=9, early_stopping=True, early_stopping_patience=2, **frozen)
    assert len(result.history) == 3
    assert "stopped early: no better for 2 epochs (early_stopping_patience)" in capsys.readouterr().out


@pytest.mark.parametrize("style", ["tqdm", "rich"])
def test_a_bar_does_not_change_the_lines(
    style: str, shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train_tiny(shapes, tmp_path, progress_bar=style, use_ema=False)
    shown = capsys.readouterr()
    assert "epoch 1/1  loss " in shown.out
    assert "epoch 1/1:" in shown.err or style == "rich"  # rich shows nothing where there is no terminal


def test_the_first_line_says_what_is_trained(shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train_tiny(shapes, tmp_path, use_ema=False)
    shown = capsys.readouterr()
    assert shown.out.splitlines()[0] == (
        "RF-DETR nano, 64 x 64 pixels, 4 classes, 8 training and 2 validation images, "
        "5 steps of 4 images per epoch, seed 0"
    )
    assert shown.err == ""
    train_tiny(shapes, tmp_path, use_ema=False)
    assert (
        capsys.readouterr().err
        == f"rfdetr: warning: {tmp_path} holds an earlier run; files of the same names will be replaced\n"
    )


def test_a_folder_that_cannot_be_written_to_is_an_error(shapes: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"output_dir: cannot write to .*file: File exists"):
        train_tiny(shapes, tmp_path / "file")


def test_the_written_settings_can_be_given_back_as_a_settings_file(finished: TrainingResult) -> None:
    configs = (ModelChoice, ModelSettings, TrainConfig)
    choice, model, run = read_configs({"config": finished.output_dir / "settings.yaml"}, configs)
    assert choice == ModelChoice(model="nano")
    assert isinstance(model, ModelSettings)
    assert (model.num_queries, model.resolution, model.group_detr) == (TINY.num_queries, 64, TINY.group_detr)
    assert isinstance(run, TrainConfig)
    assert (run.epochs, run.seed, run.lr) == (4, 0, 1e-3)
