import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from rfdetr.api import RFDETR
from rfdetr.data.annotations import Annotations
from rfdetr.data.reading import read_split
from rfdetr.errors import ConfigError, TrainingError
from rfdetr.models.detector import Detector
from rfdetr.training.plan import plan_lines
from rfdetr.training.rehearsal import Rehearsal, by_objects, rehearse
from rfdetr.weights.checkpoint import Checkpoint, save_checkpoint

from ..data.tiny_coco import annotation, write_coco
from .tiny import CPU, TINY, tiny_config, tiny_detector, train_tiny

FROZEN = {"freeze_encoder": True, "lr_encoder": 1.5e-4, "lr_vit_layer_decay": 0.8}


def splits(dataset_dir: Path) -> tuple[Annotations, Annotations]:
    train_split = read_split(dataset_dir, "train")
    return train_split, read_split(dataset_dir, "valid")


def rehearsal_on(dataset_dir: Path, output_dir: Path, detector: Detector | None = None, **settings: Any) -> Rehearsal:
    config = tiny_config(dataset_dir, output_dir, **settings)
    train_split, valid_split = splits(dataset_dir)
    return rehearse(detector or tiny_detector(len(train_split.classes)), train_split, valid_split, config, CPU)


@pytest.fixture(scope="module")
def rehearsed(shapes: Path) -> Rehearsal:
    return rehearsal_on(shapes, Path("runs/first"), epochs=4, grad_accum_steps=2, multi_scale=True, num_workers=2)


def test_the_report_has_a_line_for_each_part(rehearsed: Rehearsal) -> None:
    lines = rehearsed.report().splitlines()
    assert lines[:9] == [
        "model       nano, 4 classes, 0.4 M parameters (0.4 M of them trained), float32 on cpu",
        "images      8 for training, 2 for validation",
        "step        8 images: batch_size 4 x grad_accum_steps 2 x 1 device",
        "sizes       64 96 128 160 192 224 pixels, in evaluation 64",
        "run         5 steps per epoch, 20 in 4 epochs",
        "rates       heads 0.001, decoder 0.001, ViT 0.001",
        "schedule    step: constant (lr_drop=100 is not before the end)",
        "evaluation  4 times (after every epoch): the weights and their average, with loss",
        "loggers     metrics.csv",
    ]
    number = r"[\d.]+"
    patterns = [
        rf"files       in runs/first: about 9 MiB and some small files; {number} .iB are free",
        r"            checkpoint.pth: 6 MiB",
        r"            checkpoint_best_\*.pth: 2 x 1 MiB",
        rf"rehearsed   batch of 4 with 18 objects, the most, at 224 pixels: {number} s; usual ones at 160: {number} s",
        rf"loading     {number} s per image, in 2 processes of its own \(num_workers\)(; training waits for it)?",
        rf"memory      about {number} .iB of {number} GiB, evaluation and saving included",
        rf"time        about {number} s per step, {number} s per epoch, {number} s per evaluation: \d+s in all",
    ]
    for line, pattern in zip(lines[9:], patterns, strict=True):
        assert re.fullmatch(pattern, line), line


def test_its_numbers_belong_together(rehearsed: Rehearsal) -> None:
    assert rehearsed.step_seconds >= 2 * rehearsed.usual_seconds
    assert rehearsed.seconds == pytest.approx(20 * rehearsed.step_seconds + 4 * rehearsed.evaluation_seconds)
    assert 0 < rehearsed.memory < rehearsed.usable_memory


def test_nothing_is_changed_or_written(shapes: Path, tmp_path: Path) -> None:
    detector = tiny_detector(4).eval()
    before = {name: tensor.clone() for name, tensor in detector.state_dict().items()}
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    rehearsal_on(shapes, tmp_path / "output", detector, drop_path=0.2, **FROZEN)
    assert torch.equal(torch.rand(3), expected)
    assert not detector.training
    assert all(parameter.grad is None for parameter in detector.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in detector.state_dict().items())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("epochs", [4, 5])
def test_the_run_does_what_the_plan_says(epochs: int, shapes: Path, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"epochs": epochs, "eval_interval": 2, "checkpoint_interval": 2}
    plan = rehearsal_on(shapes, tmp_path, **settings).plan
    result, _ = train_tiny(shapes, tmp_path, **settings)
    assert plan.steps == result.history[-1]["step"]
    assert plan.evaluations == sum("val/mAP_50_95" in row for row in result.history)
    written = {path.stat().st_ino: path.stat().st_size for path in tmp_path.glob("*.pth")}
    assert len(written) == sum(files.count for files in plan.files)
    assert plan.bytes_on_disk == pytest.approx(sum(written.values()), rel=0.05)


@pytest.mark.parametrize(
    ("settings", "part", "words"),
    [
        pytest.param(
            {"lr_drop": 3},
            "schedule",
            "step: x 0.1 from step 15 on (lr_drop=3 epochs)",
            id="drop",
        ),
        pytest.param(
            {"lr_scheduler": "cosine", "lr_min_factor": 0.1, "warmup_epochs": 0.4},
            "schedule",
            "cosine: up from 0 over the first 2 steps (0.4 epochs), then half a cosine down to x 0.1 at step 20",
            id="warm-up and cosine",
        ),
        pytest.param(
            {"lr_vit_layer_decay": 0.5}, "rates", "heads 0.001, decoder 0.001, ViT 3.1e-05 to 0.001", id="decay"
        ),
        pytest.param(FROZEN, "rates", "heads 0.001, decoder 0.001, ViT 0 (freeze_encoder)", id="frozen"),
        pytest.param(
            {"eval_interval": 3, "use_ema": False, "compute_val_loss": False, "run_test": True},
            "evaluation",
            "2 times (every 3 epochs and at the end): the weights; the test split at the end",
            id="evaluation",
        ),
        pytest.param(
            {"tensorboard": True, "mlflow": True}, "loggers", "metrics.csv, tensorboard, mlflow", id="loggers"
        ),
    ],
)
def test_the_report_says(settings: dict[str, Any], part: str, words: str, shapes: Path, tmp_path: Path) -> None:
    plan = rehearsal_on(shapes, tmp_path, epochs=4, **settings).plan
    assert dict(plan_lines(plan))[part] == words


def test_the_images_with_the_most_objects_come_first(tmp_path: Path) -> None:
    of_images = [(1, 0), (1, 1), (1, 1), (2, 0), (2, 0)]  # crowds are not learned from
    annotations = [
        annotation(number, image_id=image_id, iscrowd=crowd) for number, (image_id, crowd) in enumerate(of_images)
    ]
    assert by_objects(read_split(write_coco(tmp_path, annotations=annotations), "train")).tolist() == [1, 0]


def test_several_devices_share_an_epoch(shapes: Path, tmp_path: Path) -> None:
    train_split, valid_split = splits(shapes)
    config = tiny_config(shapes, tmp_path, batch_size=1)
    alone, shared = (
        rehearse(tiny_detector(4), train_split, valid_split, config, CPU, devices=devices).plan for devices in (1, 2)
    )
    assert (alone.images_per_step, alone.steps_per_epoch) == (1, 8)
    assert (shared.images_per_step, shared.steps_per_epoch) == (2, 5)


@pytest.mark.parametrize("settings", [{"devices": 2}, {"strategy": "ddp"}])
def test_the_gradients_that_processes_exchange_count(settings: dict[str, Any], shapes: Path, tmp_path: Path) -> None:
    large = 200 * 2**20
    detector = tiny_detector(4)
    detector.register_parameter("large", nn.Parameter(torch.zeros(large // 4)))
    config, devices = tiny_config(shapes, tmp_path, **settings), settings.get("devices", 1)
    # The first leaves something behind that is not counted later.
    _, alone, shared = (
        rehearse(detector, *splits(shapes), each, CPU, devices=count).memory
        for each, count in ((config, devices), (tiny_config(shapes, tmp_path), 1), (config, devices))
    )
    assert shared - alone == pytest.approx(large, abs=large / 2)


def test_a_batch_that_does_not_fit_is_an_error_with_advice(shapes: Path, tmp_path: Path) -> None:
    detector = tiny_detector(4)
    detector.register_forward_pre_hook(out_of_memory)
    with pytest.raises(ConfigError) as caught:
        rehearsal_on(shapes, tmp_path, detector, gradient_checkpointing=True, multi_scale=True)
    assert str(caught.value) == (
        "batch_size: 4 images at a time do not fit into the memory of cpu; try batch_size='auto', or "
        "multi_scale=False, a smaller resolution"
    )


def out_of_memory(*_: Any) -> None:
    raise torch.OutOfMemoryError


def test_a_loss_that_is_not_finite_is_said(shapes: Path, tmp_path: Path) -> None:
    detector = tiny_detector(4)
    with torch.no_grad():
        detector.class_embed.weight.fill_(float("nan"))
    with pytest.raises(TrainingError, match="the loss is no longer finite"):
        rehearsal_on(shapes, tmp_path, detector)


def test_a_model_rehearses_with_the_settings_of_train(
    shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = tmp_path / "tiny.pth"
    save_checkpoint(weights, Checkpoint(tiny_detector(4).state_dict(), TINY))
    model = RFDETR.from_checkpoint(weights, device="cpu")
    rehearsed = model.rehearse(tiny_config(shapes, tmp_path / "output", batch_size="auto"))
    shown = capsys.readouterr().out
    assert re.search(r"batch_size: 4 fits \(.* GiB\), so grad_accum_steps=1 keeps 4 images per step\n", shown)
    assert rehearsed.plan.config.batch_size == 4
    assert not (tmp_path / "output").exists()
