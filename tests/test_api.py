import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import rfdetr
from rfdetr import RFDETR, ConfigError, DatasetError, RFDETRNano, RFDETRSmall, TrainConfig, WeightsError
from rfdetr.classes import ClassTable
from rfdetr.models.detector import Detector
from rfdetr.training.run import TrainingResult
from rfdetr.weights.checkpoint import Checkpoint, load_checkpoint, save_checkpoint

from .data.tiny_coco import write_coco
from .evaluation.scenes import pycocotools_metrics, run_pycocotools
from .training.tiny import TINY

NAMES = ("circle", "rectangle", "triangle", "star")
# Ids as datasets have them: not from zero, with gaps.
CATEGORY_IDS = (3, 4, 11, 12)
SETTINGS: dict[str, Any] = {
    "epochs": 1,
    "batch_size": 8,
    "grad_accum_steps": 1,
    "num_workers": 0,
    "seed": 0,
    "lr": 2e-3,
    "lr_encoder": 2e-3,
    "lr_vit_layer_decay": 1.0,
    "lr_component_decay": 1.0,
    "clip_max_norm": 1.0,
    "augment": "none",
    "multi_scale": False,
    "sample_interval": 0,
    "tensorboard": False,
    "precision": "32",  # as `evaluate` has it
}


@dataclass
class Trained:
    """A model that has learned its training images by heart."""

    model: RFDETR
    result: TrainingResult
    dataset_dir: Path


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of a tiny model of one class."""
    path = tmp_path_factory.mktemp("untrained") / "tiny.pth"
    config = TINY.replace(num_classes=1)
    save_checkpoint(path, Checkpoint(Detector(config).state_dict(), config, ClassTable.from_categories([(0, "thing")])))
    return path


@pytest.fixture(scope="module")
def dataset(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same eight images in all splits; the test split has other category ids."""
    folder = tmp_path_factory.mktemp("dataset")
    for split in ("train", "valid", "test"):
        shutil.copytree(shapes / "train", folder / split)
        file = folder / split / "_annotations.coco.json"
        content = json.loads(file.read_text())
        for row in content["categories"]:
            row["id"] = CATEGORY_IDS[row["id"]] + 100 * (split == "test")
        for row in content["annotations"]:
            row["category_id"] = CATEGORY_IDS[row["category_id"]] + 100 * (split == "test")
        file.write_text(json.dumps(content))
    return folder


@pytest.fixture(scope="module")
def trained(untrained: Path, dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    model = rfdetr.from_checkpoint(untrained, device="cpu")
    output_dir = tmp_path_factory.mktemp("trained")
    settings = {**SETTINGS, "epochs": 20, "eval_interval": 5, "ema_decay": 0.9, "ema_tau": 0, "run_test": True}
    return Trained(model, model.train(dataset_dir=dataset, output_dir=output_dir, **settings), dataset)


def test_training_makes_a_detector(trained: Trained) -> None:
    assert trained.result.metrics["mAP_50"] > 0.1
    assert trained.result.metrics["mAP_50_95"] == max(
        max(row.get("val/mAP_50_95", 0), row.get("val/ema_mAP_50_95", 0)) for row in trained.result.history
    )


def test_the_test_split_can_be_evaluated_at_the_end(trained: Trained) -> None:
    test = dict(trained.result.metrics["test"])
    assert json.loads((trained.result.output_dir / "metrics.json").read_text())["test"] == test
    assert test.pop("losses")["loss"] > 0
    assert test == trained.model.evaluate(dataset_dir=trained.dataset_dir, batch_size=8, num_workers=0).to_json()


def test_the_loss_of_the_test_split_can_be_left_out(untrained: Path, tmp_path: Path) -> None:
    for split in ("train", "valid", "test"):
        write_coco(tmp_path, split)
    for wanted in (True, False):
        model = RFDETR.from_checkpoint(untrained, device="cpu")
        settings = {**SETTINGS, "use_ema": False, "run_test": True, "compute_test_loss": wanted, "tensorboard": True}
        result = model.train(dataset_dir=tmp_path, output_dir=tmp_path / str(wanted), **settings)
        assert ("losses" in result.metrics["test"]) == wanted
        (events,) = (tmp_path / str(wanted) / "tensorboard").iterdir()
        assert (b"test/loss_giou" in events.read_bytes()) == wanted
        assert b"test/mAP_50_95" in events.read_bytes()


def test_afterwards_the_model_holds_the_best_weights(trained: Trained) -> None:
    best = load_checkpoint(trained.result.best_checkpoint).weights
    held = trained.model.detector.state_dict()
    assert all(torch.equal(held[name], best[name]) for name in held)
    assert not trained.model.detector.training


def test_classes_are_those_of_the_training_split(trained: Trained) -> None:
    assert trained.model.classes == ClassTable(CATEGORY_IDS, NAMES, (0, 1, 2, 3))
    assert trained.model.class_names == list(NAMES)
    assert trained.model.config.num_classes == 4


def test_a_checkpoint_predicts_what_the_trained_model_predicts(trained: Trained) -> None:
    opened = RFDETR.from_checkpoint(str(trained.result.best_checkpoint), device="cpu")
    assert type(opened) is RFDETRNano
    assert opened.config == trained.model.config
    assert opened.classes == trained.model.classes
    image = trained.dataset_dir / "train" / "shapes_0000.jpg"
    expected, found = (model.predict(image, threshold=0.05) for model in (trained.model, opened))
    assert len(expected) > 0
    np.testing.assert_array_equal(found.xyxy, expected.xyxy)
    np.testing.assert_array_equal(found.confidence, expected.confidence)
    assert list(found.data["class_name"]) == list(expected.data["class_name"])
    assert set(expected.data["class_name"]) <= set(NAMES)


def test_a_saved_model_opens_as_it_was(trained: Trained, tmp_path: Path) -> None:
    trained.model.save(tmp_path / "folder" / "mine.pth")
    opened = RFDETRNano.from_checkpoint(tmp_path / "folder" / "mine.pth", device="cpu")
    held = trained.model.detector.state_dict()
    assert all(torch.equal(tensor, held[name]) for name, tensor in opened.detector.state_dict().items())
    assert opened.classes == trained.model.classes


def test_evaluation_agrees_with_pycocotools_on_the_saved_predictions(trained: Trained, tmp_path: Path) -> None:
    result = trained.model.evaluate(dataset_dir=trained.dataset_dir, split="test", output_dir=tmp_path, num_workers=0)
    truth = json.loads((trained.dataset_dir / "test" / "_annotations.coco.json").read_text())
    predictions = json.loads((tmp_path / "predictions_test.json").read_text())
    assert {row["category_id"] for row in predictions} <= {103, 104, 111, 112}
    metrics, per_class = pycocotools_metrics(run_pycocotools(truth, predictions, max_dets=500), max_dets=500)
    assert {name: result[name] for name in metrics} == pytest.approx(metrics, abs=1e-9)
    assert result.per_class == pytest.approx(per_class, abs=1e-9)
    assert json.loads((tmp_path / "metrics_test.json").read_text()) == result.to_json()


def test_training_goes_on_from_the_held_weights(trained: Trained, tmp_path: Path) -> None:
    model = RFDETR.from_checkpoint(trained.result.best_checkpoint, device="cpu")
    before = {name: tensor.clone() for name, tensor in model.detector.state_dict().items()}
    settings = {**SETTINGS, "lr": 1e-12, "lr_encoder": 1e-12}
    again = model.train(TrainConfig(dataset_dir=trained.dataset_dir, output_dir=tmp_path, **settings))
    for name, tensor in model.detector.state_dict().items():
        torch.testing.assert_close(tensor, before[name], atol=1e-9, rtol=1e-6)
    assert again.history[0]["train/loss"] < 0.7 * trained.result.history[0]["train/loss"]
    assert again.metrics["mAP_50_95"] == pytest.approx(trained.result.metrics["mAP_50_95"], abs=1e-3)


def test_classes_of_the_same_name_keep_what_was_learned(trained: Trained, tmp_path: Path) -> None:
    model = RFDETR.from_checkpoint(trained.result.best_checkpoint, device="cpu")
    learned = model.detector.class_embed.weight.clone()
    dataset = renamed(trained.dataset_dir, tmp_path / "dataset", {"rectangle": "box", "star": "a star"})
    model.train(
        dataset_dir=dataset, output_dir=tmp_path, **{**SETTINGS, "lr": 1e-12, "lr_encoder": 1e-12, "use_ema": False}
    )
    assert model.class_names == ["circle", "box", "triangle", "a star"]
    kept = [torch.allclose(row, old, atol=1e-9) for row, old in zip(model.detector.class_embed.weight, learned)]  # noqa: B905
    assert kept == [True, False, True, False, False]


def renamed(dataset_dir: Path, folder: Path, names: dict[str, str]) -> Path:
    """A copy of a dataset with other names for some classes."""
    shutil.copytree(dataset_dir, folder)
    for file in folder.glob("*/_annotations.coco.json"):
        content = json.loads(file.read_text())
        for row in content["categories"]:
            row["name"] = names.get(row["name"], row["name"])
        file.write_text(json.dumps(content))
    return folder


def test_other_names_go_by_the_order_of_the_dataset(trained: Trained, tmp_path: Path) -> None:
    """The same pictures with foreign names, and numbers in the opposite order."""
    dataset = renamed(trained.dataset_dir, tmp_path / "dataset", {name: name.upper() for name in NAMES})
    file = dataset / "test" / "_annotations.coco.json"
    content = json.loads(file.read_text())
    for row in content["categories"]:
        row["id"] = 500 - row["id"]
    for row in content["annotations"]:
        row["category_id"] = 500 - row["category_id"]
    file.write_text(json.dumps(content))
    expected = trained.model.evaluate(dataset_dir=trained.dataset_dir, num_workers=0)
    found = trained.model.evaluate(dataset_dir=dataset, class_names=NAMES[::-1], num_workers=0)
    assert found.to_json() == expected.to_json()
    assert found["mAP_50"] != 0


def test_a_resolution_to_train_at_stays(trained: Trained, tmp_path: Path) -> None:
    model = RFDETR.from_checkpoint(trained.result.best_checkpoint, device="cpu")
    result = model.train(
        dataset_dir=trained.dataset_dir, output_dir=tmp_path, **{**SETTINGS, "resolution": 96, "use_ema": False}
    )
    assert model.config.resolution == 96
    assert RFDETR.from_checkpoint(result.best_checkpoint, device="cpu").config.resolution == 96


def test_too_few_classes_are_an_error_and_too_many_a_warning(
    untrained: Path, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = RFDETR.from_checkpoint(untrained, device="cpu", num_classes=2)
    with pytest.raises(ConfigError, match="num_classes=2, but the dataset has 4: circle, rectangle, triangle, star"):
        few.train(dataset_dir=dataset, output_dir=tmp_path / "few", **SETTINGS)
    assert not (tmp_path / "few").exists()
    many = RFDETR.from_checkpoint(untrained, device="cpu", num_classes=6)
    many.train(dataset_dir=dataset, output_dir=tmp_path / "many", **{**SETTINGS, "use_ema": False})
    assert "num_classes=6, but the dataset has 4; the other logits stay untrained" in capsys.readouterr().err
    assert many.config.num_classes == 6


def no_dataset(folder: Path) -> None:
    shutil.rmtree(folder)


def no_annotations(folder: Path) -> None:
    (folder / "valid" / "_annotations.coco.json").unlink()


def broken_json(folder: Path) -> None:
    (folder / "train" / "_annotations.coco.json").write_text('{"images": [\n')


def no_images(folder: Path) -> None:
    for name in ("1.png", "2.png"):
        (folder / "train" / name).unlink()


def no_valid_split(folder: Path) -> None:
    shutil.rmtree(folder / "valid")


@pytest.mark.parametrize(
    ("spoil", "settings", "expected"),
    [
        pytest.param(no_dataset, {}, r"^\S*data: no such folder. Give the folder of a dataset", id="wrong path"),
        pytest.param(no_annotations, {}, r"split 'valid' is incomplete: no \S*_annotations.coco.json$", id="no file"),
        pytest.param(broken_json, {}, r"not JSON: the file ends too early in line 2, column 1$", id="broken file"),
        pytest.param(no_images, {}, r"2 of 2 images cannot be used: see the warnings for why", id="missing images"),
        pytest.param(no_valid_split, {}, r"no split 'valid', .* valid_fraction=0.1", id="no validation split"),
    ],
)
def test_a_dataset_that_cannot_be_used_is_one_error_before_training(
    spoil: Callable[[Path], None], settings: dict[str, Any], expected: str, untrained: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    for split in ("train", "valid", "test"):
        write_coco(data, split)
    spoil(data)
    model = RFDETR.from_checkpoint(untrained, device="cpu")
    with pytest.raises(DatasetError, match=expected):
        model.train(dataset_dir=data, output_dir=tmp_path / "output", **SETTINGS, **settings)
    assert not (tmp_path / "output").exists()


def test_without_a_test_split_the_run_goes_on_and_validation_may_be_a_part_of_the_training_images(
    untrained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_coco(tmp_path / "data")
    model = RFDETR.from_checkpoint(untrained, device="cpu")
    settings = {**SETTINGS, "run_test": True, "valid_fraction": 0.5, "use_ema": False}
    result = model.train(dataset_dir=tmp_path / "data", output_dir=tmp_path / "output", **settings)
    shown = capsys.readouterr()
    assert "no test split, so that run_test has nothing to test on" in shown.err
    assert "validation: 1 of the training images (valid_fraction=0.5, valid_seed=0), 1 are left" in shown.out
    assert "test" not in result.metrics


def test_of_yolo_without_a_test_split_the_validation_split_is_evaluated_and_its_files_say_so(
    untrained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    for split in ("train", "valid"):
        (data / split / "images").mkdir(parents=True)
        (data / split / "labels").mkdir()
        Image.new("RGB", (60, 40)).save(data / split / "images/1.png")
        (data / split / "labels/1.txt").write_text("0 0.5 0.5 0.2 0.2")
    (data / "data.yaml").write_text("train: train/images\nval: valid/images\nnames: [thing]\n")
    model = RFDETR.from_checkpoint(untrained, device="cpu")
    result = model.evaluate(dataset_dir=data, output_dir=tmp_path / "output", num_workers=0)
    assert result.num_objects == 1
    assert "no test split; this is the validation split" in capsys.readouterr().err
    assert {file.name for file in (tmp_path / "output").iterdir()} == {"metrics_valid.json", "predictions_valid.json"}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        pytest.param({"epoch": 3}, "TrainConfig: epoch: no such setting. Did you mean 'epochs'?", id="name"),
        pytest.param(
            {"batch_size": 0, "precision": "int8"},
            "TrainConfig has 2 problems:\n"
            "  batch_size: input should be greater than 0, or 'auto', got 0\n"
            "  precision: input should be 'auto', '32', 'bf16' or 'fp16', got 'int8'",
            id="values",
        ),
        pytest.param(
            {"precision": "fp16"}, "train: precision: 'fp16' needs a GPU; on the CPU use 'bf16' or '32'", id="machine"
        ),
        pytest.param(
            {"resolution": 100},
            "TrainConfig: resolution=100 is not a multiple of patch_size x num_windows = 32; nearest: 96 or 128",
            id="model",
        ),
    ],
)
def test_a_wrong_setting_is_one_error_before_training(
    settings: dict[str, Any], expected: str, untrained: Path, dataset: Path, tmp_path: Path
) -> None:
    model = RFDETR.from_checkpoint(untrained, device="cpu")
    with pytest.raises(ConfigError) as caught:
        model.train(dataset_dir=dataset, output_dir=tmp_path / "output", **{**SETTINGS, **settings})
    assert str(caught.value) == expected
    assert not (tmp_path / "output").exists()


def test_a_config_and_settings_do_not_mix(trained: Trained) -> None:
    config = TrainConfig(dataset_dir=trained.dataset_dir)
    with pytest.raises(ConfigError, match="train: give a config or settings, not both"):
        trained.model.train(config, epochs=2)  # type: ignore[call-overload]


def test_evaluation_wants_classes_that_the_model_knows(trained: Trained, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="Only in the dataset: cat, dog; only in the model: circle, rectangle"):
        trained.model.evaluate(dataset_dir=write_coco(tmp_path, "test"))


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        pytest.param({"num_clases": 3}, "num_clases: no such setting. Did you mean 'num_classes'?", id="name"),
        pytest.param({"num_queries": 0}, "num_queries: input should be greater than 0, got 0", id="value"),
        pytest.param(
            {"device": "gpu"}, "device: must be 'cpu', 'cuda', 'cuda:<index>' or 'mps', got 'gpu'", id="device"
        ),
    ],
)
def test_a_wrong_setting_of_the_model_is_one_error(settings: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        RFDETRNano(**settings)
    assert str(caught.value) == f"ModelSettings: {expected}"


def test_the_model_without_a_size_is_opened_from_files_only() -> None:
    with pytest.raises(ConfigError, match=r"use RFDETRNano, ... or RFDETR.from_checkpoint"):
        RFDETR()


def test_a_size_opens_files_of_its_own(untrained: Path) -> None:
    with pytest.raises(WeightsError, match=r"tiny.pth: is of size 'nano', not 'small'; use RFDETR.from_checkpoint"):
        RFDETRSmall.from_checkpoint(untrained)


def test_settings_shape_the_model() -> None:
    model = RFDETRNano(
        num_classes=3, resolution=64, num_queries=10, group_detr=2, pretrain_weights=None, device="cpu", init_seed=1
    )
    assert model.device.type == "cpu"
    assert model.classes is None
    assert model.class_names == []
    with torch.inference_mode():
        outputs = model.detector(torch.zeros(1, 3, 64, 64))
    assert outputs["pred_logits"].shape == (1, 10, 4)
    assert outputs.keys() == {"pred_logits", "pred_boxes", "aux_outputs", "enc_outputs"}
    assert set(model.predict(np.zeros((80, 60, 3), dtype=np.uint8), threshold=0.0).data["class_name"]) <= {
        "class 0",
        "class 1",
        "class 2",
        "__background__",
    }
