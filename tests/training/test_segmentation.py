"""Training with masks, from files to the best checkpoint."""

import csv
from pathlib import Path
from typing import Any

import pytest
import torch

from rfdetr.api import RFDETR
from rfdetr.config.model import ModelSettings
from rfdetr.data.reading import read_split
from rfdetr.errors import ConfigError, DatasetError
from rfdetr.models.detector import Detector
from rfdetr.training.run import TrainingResult, train
from rfdetr.weights.checkpoint import Checkpoint, load_checkpoint, save_checkpoint

from .tiny import CPU, STILL, TINY, recorded_gradients, tiny_config

TINY_SEG = TINY.replace(size="seg-nano", segmentation_head=True)


def train_masks(dataset_dir: Path, output_dir: Path, **settings: Any) -> tuple[TrainingResult, Detector]:
    train_split = read_split(dataset_dir, "train", masks=True)
    valid_split = read_split(dataset_dir, "valid", masks=True)
    detector = Detector(TINY_SEG).train()
    config = tiny_config(dataset_dir, output_dir, **settings)
    return train(detector, train_split, valid_split, config, ModelSettings(), CPU), detector


def first_gradient(dataset_dir: Path, output_dir: Path, **settings: Any) -> torch.Tensor:
    with recorded_gradients() as gradients:
        train_masks(dataset_dir, output_dir, **STILL, **settings)
    return gradients[0]


def test_the_split_of_a_step_does_not_change_its_gradient(shapes: Path, tmp_path: Path) -> None:
    whole = first_gradient(shapes, tmp_path / "whole", batch_size=4)
    parts = first_gradient(shapes, tmp_path / "parts", batch_size=1, grad_accum_steps=4)
    assert (parts - whole).norm() < 1e-5 * whole.norm()


@pytest.fixture(scope="module")
def finished(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainingResult, Detector]:
    return train_masks(shapes, tmp_path_factory.mktemp("masks"), epochs=3, batch_size=8, augment="none")


def test_the_losses_of_masks_fall(finished: tuple[TrainingResult, Detector]) -> None:
    """Dice, that is: the cross-entropy is taken where the prediction is unsure, and stays high."""
    first, *_, last = finished[0].history
    for name in ("train/loss_mask_dice", "train/loss_mask_dice_aux"):
        assert last[name] < first[name]


def test_every_epoch_tells_the_ap_of_masks_and_of_boxes(finished: tuple[TrainingResult, Detector]) -> None:
    with (finished[0].output_dir / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3
    for row in rows:
        for name in ("val/mAP_50_95", "val/segm_mAP_50_95", "val/segm_mAP_50", "val/ema_segm_mAP_50_95"):
            assert 0 <= float(row[name]) <= 1


def test_all_of_the_mask_head_has_learned(finished: tuple[TrainingResult, Detector]) -> None:
    before, after = Detector(TINY_SEG).state_dict(), finished[1].state_dict()
    unchanged = [
        name for name in before if name.startswith("segmentation_head") and torch.equal(before[name], after[name])
    ]
    assert unchanged == []


def test_the_best_weights_know_that_they_have_masks(finished: tuple[TrainingResult, Detector]) -> None:
    checkpoint = load_checkpoint(finished[0].best_checkpoint)
    assert checkpoint.config == TINY_SEG
    assert any(name.startswith("segmentation_head") for name in checkpoint.weights)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_seed_gives_the_same_weights_with_any_number_of_workers(
    shapes: Path, tmp_path: Path, workers: int, one_epoch: dict[str, torch.Tensor]
) -> None:
    _, detector = train_masks(shapes, tmp_path, num_workers=workers, multi_scale=True)
    assert all(torch.equal(tensor, one_epoch[name]) for name, tensor in detector.state_dict().items())


@pytest.fixture(scope="module")
def one_epoch(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    return train_masks(shapes, tmp_path_factory.mktemp("one_epoch"), multi_scale=True)[1].state_dict()


@pytest.mark.parametrize(
    "settings",
    [{"mask_ce_loss_coef": 1.0}, {"mask_dice_loss_coef": 1.0}, {"mask_point_sample_ratio": 4}],
    ids=lambda settings: next(iter(settings)),
)
def test_a_setting_of_masks_changes_the_gradient(shapes: Path, tmp_path: Path, settings: dict[str, Any]) -> None:
    usual, other = first_gradient(shapes, tmp_path / "usual"), first_gradient(shapes, tmp_path / "other", **settings)
    assert (usual - other).norm() > 0.01 * usual.norm()


def test_masks_that_weigh_nothing_train_nothing(shapes: Path, tmp_path: Path) -> None:
    with recorded_gradients() as gradients:
        _, detector = train_masks(shapes, tmp_path, **STILL, mask_ce_loss_coef=0, mask_dice_loss_coef=0)
    weights = detector.state_dict().items()
    head = sum(tensor.numel() for name, tensor in weights if name.startswith("segmentation_head"))
    assert (gradients[0] == 0).sum() >= head


@pytest.fixture
def untrained(tmp_path: Path) -> Path:
    path = tmp_path / "untrained.pth"
    save_checkpoint(path, Checkpoint(Detector(TINY_SEG).state_dict(), TINY_SEG))
    return path


QUICK: dict[str, Any] = {"epochs": 1, "batch_size": 4, "grad_accum_steps": 1, "num_workers": 0, "tensorboard": False}


def test_photographs_with_masks_of_all_three_forms(shared: Path, untrained: Path, tmp_path: Path) -> None:
    """From a folder to masks on a photograph, through the public interface."""
    dataset_dir = shared / "data" / "fruits-nuts-seg"
    model = RFDETR.from_checkpoint(untrained)
    result = model.train(dataset_dir=dataset_dir, output_dir=tmp_path / "run", seed=0, **QUICK)
    assert {"segm_mAP_50_95", "mAP_50_95"} <= set(result.metrics)
    opened = RFDETR.from_checkpoint(result.best_checkpoint)
    found = opened.predict(dataset_dir / "test" / "06.jpg", threshold=0.0)
    assert found.mask is not None
    assert found.mask.shape == (TINY_SEG.num_select, 480, 640)
    evaluated = opened.evaluate(dataset_dir=dataset_dir, split="test", num_workers=0)
    assert evaluated["segm_mAP_50_95"] is not None


def test_a_segmentation_model_wants_masks(tmp_path: Path, untrained: Path, shapes: Path) -> None:
    split = (shapes / "train" / "_annotations.coco.json").read_text()
    (tmp_path / "data" / "train").mkdir(parents=True)
    (tmp_path / "data" / "train" / "_annotations.coco.json").write_text(split.replace('"segmentation"', '"outline"'))
    for picture in (shapes / "train").glob("*.jpg"):
        (tmp_path / "data" / "train" / picture.name).write_bytes(picture.read_bytes())
    with pytest.raises(DatasetError, match="A segmentation model needs masks"):
        RFDETR.from_checkpoint(untrained).train(dataset_dir=tmp_path / "data", output_dir=tmp_path / "run", **QUICK)
    assert not (tmp_path / "run").exists()


def test_settings_of_masks_are_refused_where_there_are_none(tmp_path: Path, shapes: Path) -> None:
    save_checkpoint(tmp_path / "boxes.pth", Checkpoint(Detector(TINY).state_dict(), TINY))
    model = RFDETR.from_checkpoint(tmp_path / "boxes.pth")
    with pytest.raises(ConfigError) as caught:
        model.train(dataset_dir=shapes, output_dir=tmp_path / "run", mask_ce_loss_coef=2.0, **QUICK)
    assert str(caught.value) == (
        "TrainConfig: mask_ce_loss_coef: of no effect on a detection model; leave it out or use a seg- size"
    )
