import json
import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import rfdetr
from rfdetr import RFDETR, ConfigError, DatasetError, RFDETRLarge, RFDETRMedium, RFDETRNano, RFDETRSmall, WeightsError
from rfdetr.classes import ClassTable
from rfdetr.coco_names import COCO
from rfdetr.config.presets import preset
from rfdetr.models.detector import Detector
from rfdetr.weights.checkpoint import Checkpoint, save_checkpoint
from rfdetr.weights.names import to_published

from .data.tiny_coco import annotation, category, image, write_coco
from .training.tiny import TINY
from .weights.test_encoder import dinov2

STILL: dict[str, Any] = {
    "epochs": 1,
    "batch_size": 2,
    "grad_accum_steps": 1,
    "num_workers": 0,
    "seed": 0,
    "lr": 1e-12,
    "lr_encoder": 1e-12,
    "use_ema": False,
    "augment": "none",
    "multi_scale": False,
    "sample_interval": 0,
    "tensorboard": False,
}
TRAFFIC = ClassTable.from_categories([(1, "bus"), (2, "car"), (3, "tram")])


def written(path: Path, classes: ClassTable | None = TRAFFIC, num_classes: int = 3) -> Path:
    """A tiny model with random weights; its class heads differ from row to row."""
    config = TINY.replace(num_classes=num_classes)
    save_checkpoint(path, Checkpoint(Detector(config, seed=5).state_dict(), config, classes))
    return path


def dataset(folder: Path, categories: list[Any], category_id: int) -> Path:
    """Training, validation and test images with one object of a category."""
    for split in ("train", "valid", "test"):
        write_coco(folder, split, annotations=[annotation(1, category_id=category_id)], categories=categories)
    return folder


def head_rows(model: RFDETR) -> torch.Tensor:
    return model.detector.class_embed.weight.detach().clone()


# Opening


def test_a_file_of_another_size_is_refused_with_the_class_that_opens_it(tmp_path: Path) -> None:
    path = written(tmp_path / "mine.pth")
    with pytest.raises(WeightsError) as caught:
        RFDETRSmall(pretrain_weights=path, device="cpu")
    first, *lines = str(caught.value).splitlines()
    assert first == f"{path}: does not fit RFDETRSmall:"
    assert "  dec_layers: 2 in the file, 3 in the model" in lines
    assert "  encoder_width: 32 in the file, 384 in the model" in lines
    assert lines[-1] == f"Open it with RFDETRNano(pretrain_weights={str(path)!r})"


def test_a_depth_that_the_weights_do_not_have_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "mine.pth")
    with pytest.raises(WeightsError) as caught:
        rfdetr.from_checkpoint(path, device="cpu", dec_layers=4)
    assert str(caught.value) == f"{path}: does not fit RFDETRNano:\n  dec_layers: 2 in the file, 4 in the model"


def test_a_file_that_wants_to_run_code_is_opened_when_it_is_trusted(tmp_path: Path) -> None:
    path = written(tmp_path / "mine.pth")
    torch.save({**torch.load(path), "where": tmp_path}, path)
    with pytest.raises(WeightsError, match=r"asks for pathlib.\w+, .* open it with trust_checkpoint=True"):
        rfdetr.from_checkpoint(path, device="cpu")
    assert rfdetr.from_checkpoint(path, device="cpu", trust_checkpoint=True).class_names == ["bus", "car", "tram"]


def test_a_file_without_a_class_head(tmp_path: Path) -> None:
    torch.save({"model": {"query_feat.weight": torch.ones(3, 3)}, "model_name": "RFDETRNano"}, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match=r"a.pth: not a detector of RF-DETR: its weights do not show its"):
        rfdetr.from_checkpoint(tmp_path / "a.pth", device="cpu")


def test_where_several_sizes_are_alike_the_user_names_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Medium and Large, fine-tuned at a resolution of neither."""
    config = preset("medium").replace(resolution=640, positional_encoding_size=40, num_classes=2)
    path = tmp_path / "weights.pth"
    torch.save({"model": to_published(Detector(config).state_dict())}, path)
    with pytest.raises(WeightsError) as caught:
        rfdetr.from_checkpoint(path, device="cpu")
    assert str(caught.value) == (
        f"{path}: does not say which size it is, and no size or several are like it. "
        f"Name the size, as in RFDETRMedium.from_checkpoint({str(path)!r})"
    )
    assert RFDETRMedium.from_checkpoint(path, device="cpu").config == config
    assert capsys.readouterr().out == ""
    assert RFDETRMedium(pretrain_weights=path, device="cpu").config.resolution == 576
    assert capsys.readouterr().out == "weights fitted: position embeddings: 40x40 -> 36x36, interpolated\n"
    named = tmp_path / "rf-detr-medium.pth"
    path.rename(named)
    assert rfdetr.from_checkpoint(named, device="cpu").config == config


def test_the_encoder_alone_may_be_pretrained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = dinov2(patch_size=14, grid=37, width=384, depth=12)
    save_file(weights, tmp_path / "model.safetensors")
    model = RFDETRNano(pretrain_weights=None, encoder_weights=tmp_path, device="cpu")
    assert torch.equal(model.detector.backbone.vit.norm.weight, weights["layernorm.weight"])
    assert torch.equal(model.detector.class_embed.weight, Detector(preset("nano")).class_embed.weight)
    assert capsys.readouterr().out.splitlines() == [
        "weights fitted: patch projection: 14x14 -> 16x16, resized",
        "weights fitted: position embeddings: 37x37 -> 24x24, interpolated",
    ]


def test_two_encoders_are_one_too_many() -> None:
    with pytest.raises(ConfigError) as caught:
        RFDETRNano(encoder_weights="dinov2")
    assert str(caught.value) == (
        "ModelSettings: encoder_weights is for training from scratch, but pretrain_weights='published' brings an "
        "encoder of its own; add pretrain_weights=None"
    )


# Fitting


def test_a_class_is_carried_over_although_its_name_is_known_only_at_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = written(tmp_path / "mine.pth")
    learned = head_rows(rfdetr.from_checkpoint(file, device="cpu"))
    model = rfdetr.from_checkpoint(file, device="cpu", num_classes=2, group_detr=2)
    assert model.class_names == []
    fresh = head_rows(model)
    data = dataset(tmp_path / "data", [category(1, "car"), category(2, "helmet")], 1)
    capsys.readouterr()
    model.train(dataset_dir=data, output_dir=tmp_path / "run", **STILL)
    assert "weights fitted: class heads: 3 -> 2 classes, 1 carried over by name, the rest new\n" in (
        capsys.readouterr().out
    )
    assert model.class_names == ["car", "helmet"]
    assert torch.allclose(head_rows(model), torch.stack([learned[1], fresh[1], fresh[2]]), atol=1e-9)
    group = model.detector.state_dict()["transformer.enc_out_class_embed.1.bias"]
    file_group = torch.load(file)["model"]["transformer.enc_out_class_embed.1.bias"]
    assert group[0] == pytest.approx(float(file_group[1]))
    assert model._model.spare_heads is None


def test_rows_by_position_at_training(tmp_path: Path) -> None:
    model = rfdetr.from_checkpoint(written(tmp_path / "mine.pth"), device="cpu", class_rows="by-position")
    learned = head_rows(model)
    data = dataset(tmp_path / "data", [category(1, "car"), category(2, "helmet")], 1)
    model.train(dataset_dir=data, output_dir=tmp_path / "run", **STILL)
    assert torch.allclose(head_rows(model), learned[:3], atol=1e-9)
    assert model.class_names == ["car", "helmet"]


# Saving


@pytest.mark.parametrize("name", ["mine.pth", "mine.pt", "mine.ckpt", "mine.safetensors"])
def test_a_saved_model_opens_bit_by_bit(tmp_path: Path, name: str) -> None:
    model = rfdetr.from_checkpoint(written(tmp_path / "first.pth"), device="cpu", num_queries=7)
    model.save(tmp_path / "new" / name)
    again = rfdetr.from_checkpoint(tmp_path / "new" / name, device="cpu")
    assert again.config == model.config
    assert again.classes == model.classes
    held = model.detector.state_dict()
    assert all(torch.equal(tensor, held[key]) for key, tensor in again.detector.state_dict().items())
    assert list((tmp_path / "new").iterdir()) == [tmp_path / "new" / name]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mine.onnx", "a checkpoint ends in .pth, .pt, .ckpt or .safetensors"),
        ("mine", "a checkpoint ends in .pth, .pt, .ckpt or .safetensors"),
        ("file.pth/mine.pth", "cannot be written: File exists"),
        ("folder.pth", "cannot be written: Is a directory"),
    ],
)
def test_a_path_that_cannot_be_saved_to(tmp_path: Path, name: str, message: str) -> None:
    model = rfdetr.from_checkpoint(written(tmp_path / "file.pth"), device="cpu")
    (tmp_path / "folder.pth").mkdir()
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ConfigError) as caught:
        model.save(tmp_path / name)
    assert str(caught.value) == f"save: {tmp_path / name}: {message}"
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="POSIX")
def test_a_pipe_is_refused_rather_than_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.pth")
    with pytest.raises(WeightsError, match=r"pipe.pth: is a pipe or a device, not a weight file"):
        rfdetr.from_checkpoint(tmp_path / "pipe.pth")


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_a_full_disk_is_one_message_and_the_old_file_stays(tmp_path: Path, suffix: str) -> None:
    resource = pytest.importorskip("resource")
    model = rfdetr.from_checkpoint(written(tmp_path / "file.pth"), device="cpu")
    path = tmp_path / f"mine.{suffix}"
    path.write_bytes(b"old")
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(ConfigError, match=r"save: .*mine.*: cannot be written"):
            model.save(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == b"old"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["file.pth", path.name]


def test_the_home_folder_may_be_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    model = rfdetr.from_checkpoint(written(tmp_path / "file.pth"), device="cpu")
    model.save("~/mine.pth")
    assert torch.equal(head_rows(rfdetr.from_checkpoint("~/mine.pth", device="cpu")), head_rows(model))


@pytest.mark.parametrize("path", [None, b"x.pth", "", "a\0b.pth", 7], ids=repr)
def test_what_is_no_path(tmp_path: Path, path: Any) -> None:
    model = rfdetr.from_checkpoint(written(tmp_path / "file.pth"), device="cpu")
    with pytest.raises(ConfigError, match="from_checkpoint: expected a path, got"):
        rfdetr.from_checkpoint(path)
    with pytest.raises(ConfigError, match="save: expected a path, got"):
        model.save(path)


@pytest.mark.parametrize(
    "claim", [{"hidden_dim": 2**17}, {"positional_encoding_size": 10**6}, {"group_detr": 10**6}], ids=str
)
def test_a_file_cannot_ask_for_memory_that_it_has_no_weights_for(tmp_path: Path, claim: dict[str, int]) -> None:
    file = {"model": {"class_embed.bias": torch.zeros(91)}, "model_name": "RFDETRNano", "model_config": claim}
    torch.save(file, tmp_path / "bomb.pth")
    with pytest.raises(WeightsError, match=r"bomb.pth: not a detector of RF-DETR"):
        rfdetr.from_checkpoint(tmp_path / "bomb.pth")


def test_a_size_that_is_only_guessed_gives_way_to_the_one_that_is_named(tmp_path: Path) -> None:
    """Medium and Large have the same weights but for the grid of positions."""
    config = preset("large").replace(resolution=576, positional_encoding_size=36, num_classes=3)
    torch.save({"model": to_published(Detector(config).state_dict())}, tmp_path / "best.pth")
    assert rfdetr.from_checkpoint(tmp_path / "best.pth", device="cpu").config.size == "medium"
    assert RFDETRLarge.from_checkpoint(tmp_path / "best.pth", device="cpu").config.size == "large"


# The class table


def test_the_ids_of_the_latest_dataset_are_kept_with_the_logits_of_the_model(tmp_path: Path) -> None:
    model = rfdetr.from_checkpoint(written(tmp_path / "file.pth"), device="cpu")
    before = head_rows(model)
    categories = [category(5, "tram"), category(7, "car"), category(9, "bus")]
    model.train(dataset_dir=dataset(tmp_path / "data", categories, 7), output_dir=tmp_path / "run", **STILL)
    assert model.classes == ClassTable((9, 7, 5), ("bus", "car", "tram"), (0, 1, 2))
    torch.testing.assert_close(head_rows(model), before, rtol=0, atol=1e-6)


@dataclass
class Table:
    """Categories as in a file, the one that is annotated, and the names that they are to have."""

    categories: list[Any]
    annotated: int
    names: list[str]


NINETY = [category(number, f"class {number}") for number in range(1, 91)]
TABLES = {
    "from 0": Table([category(0, "cat"), category(1, "dog")], 1, ["cat", "dog"]),
    "from 1": Table([category(1, "cat"), category(2, "dog")], 2, ["cat", "dog"]),
    "with gaps": Table([category(9, "dog"), category(3, "cat"), category(40, "emu")], 40, ["cat", "dog", "emu"]),
    "a parent": Table(
        [category(0, "pets"), category(1, "cat", supercategory="pets"), category(2, "dog", supercategory="pets")],
        2,
        ["cat", "dog"],
    ),
    "one class": Table([category(5, "cat")], 5, ["cat"]),
    "90 classes": Table(NINETY, 90, [row["name"] for row in NINETY]),
    "unicode": Table([category(1, "猫"), category(2, "chien d'arrêt 🐕"), category(3, 'a "b"\nc')], 1, []),
}


@pytest.mark.parametrize("kind", TABLES)
def test_names_and_ids_stay_what_they_are_through_training_saving_predicting_and_evaluating(
    tmp_path: Path, kind: str
) -> None:
    table = TABLES[kind]
    names = table.names or [row["name"] for row in table.categories]
    ids = sorted(row["id"] for row in table.categories if row["name"] in names)
    data = dataset(tmp_path / "data", table.categories, table.annotated)
    model = rfdetr.from_checkpoint(written(tmp_path / "mine.pth"), device="cpu")
    result = model.train(dataset_dir=data, output_dir=tmp_path / "run", **STILL)
    model.save(tmp_path / "saved.safetensors")
    picture = data / "train" / "1.png"
    expected = model.predict(picture, threshold=0.0)
    for file in (result.best_checkpoint, tmp_path / "saved.safetensors"):
        opened = rfdetr.from_checkpoint(file, device="cpu")
        assert opened.class_names == names
        assert opened.classes == ClassTable(tuple(ids), tuple(names), tuple(range(len(ids))))
        found = opened.predict(picture, threshold=0.0)
        np.testing.assert_array_equal(found.xyxy, expected.xyxy)
        np.testing.assert_array_equal(found.class_id, expected.class_id)
        assert list(found.data["class_name"]) == list(expected.data["class_name"])
        assert set(found.data["class_name"]) <= {*names, "__background__"}
        metrics = opened.evaluate(dataset_dir=data, split="test", output_dir=tmp_path / "eval", num_workers=0)
        assert list(metrics.per_class) == names
        rows = json.loads((tmp_path / "eval" / "predictions_test.json").read_text())
        assert {row["category_id"] for row in rows} <= set(ids)
        assert rows


def test_coco_ids_survive(tmp_path: Path) -> None:
    written(tmp_path / "coco.pth", COCO, num_classes=90)
    model = rfdetr.from_checkpoint(tmp_path / "coco.pth", device="cpu")
    categories = [category(number, name) for number, name in zip(COCO.category_ids, COCO.names, strict=True)]
    model.train(dataset_dir=dataset(tmp_path / "data", categories, 90), output_dir=tmp_path / "run", **STILL)
    model.save(tmp_path / "again.pth")
    again = rfdetr.from_checkpoint(tmp_path / "again.pth", device="cpu")
    assert again.classes == COCO
    assert again.config.num_classes == 90
    assert again.class_names[90] == "toothbrush"


# Evaluating


def test_classes_that_the_model_does_not_know_are_refused_annotated_or_not(tmp_path: Path) -> None:
    model = rfdetr.from_checkpoint(written(tmp_path / "mine.pth"), device="cpu")
    data = dataset(tmp_path / "data", [category(1, "car"), category(2, "helmet"), category(3, "bike")], 1)
    with pytest.raises(DatasetError) as caught:
        model.evaluate(dataset_dir=data, split="test")
    assert str(caught.value) == (
        f"{data / 'test' / '_annotations.coco.json'}: its classes are not those of the model. "
        "Only in the dataset: helmet, bike; only in the model: bus, tram"
    )


def test_classes_that_the_dataset_lacks_are_named_and_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = rfdetr.from_checkpoint(written(tmp_path / "mine.pth"), device="cpu")
    categories = [category(0, "vehicles"), category(8, "car", supercategory="vehicles")]
    data = dataset(tmp_path / "data", categories, 8)
    assert model.evaluate(dataset_dir=data, split="test", num_workers=0).num_objects == 1
    assert capsys.readouterr().err == (
        f"rfdetr: warning: {data / 'test' / '_annotations.coco.json'}: lacks 2 classes of the model, left out: "
        "bus, tram\n"
    )


def test_many_classes_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = rfdetr.from_checkpoint(written(tmp_path / "coco.pth", COCO, num_classes=90), device="cpu")
    data = dataset(tmp_path / "data", [category(1, "car")], 1)
    model.evaluate(dataset_dir=data, split="test", num_workers=0)
    assert "lacks 79 classes of the model, left out: person, bicycle, " in (said := capsys.readouterr().err)
    assert said.endswith(" and 59 more\n")


def test_a_model_without_names_takes_a_dataset_with_as_many_classes(tmp_path: Path) -> None:
    model = rfdetr.from_checkpoint(written(tmp_path / "mine.pth", None), device="cpu")
    three = [category(number, name) for number, name in enumerate("abc")]
    data = dataset(tmp_path / "three", three, 1)
    assert list(model.evaluate(dataset_dir=data, split="test", num_workers=0).per_class) == ["a", "b", "c"]
    data = dataset(tmp_path / "two", three[:2], 1)
    with pytest.raises(DatasetError) as caught:
        model.evaluate(dataset_dir=data, split="test")
    assert str(caught.value) == (
        f"{data / 'test' / '_annotations.coco.json'}: has 2 classes (a, b), the model 3 without names. "
        "Open a checkpoint with class names, or train the model on this dataset"
    )


def test_images_need_no_objects_to_be_evaluated(tmp_path: Path) -> None:
    model = rfdetr.from_checkpoint(written(tmp_path / "mine.pth"), device="cpu")
    categories = [category(number, name) for number, name in enumerate(TRAFFIC.names)]
    data = write_coco(tmp_path / "data", "test", images=[image(1)], annotations=[], categories=categories)
    assert model.evaluate(dataset_dir=data, split="test", num_workers=0).num_images == 1
