import argparse
import types
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from rfdetr.classes import ClassTable
from rfdetr.coco_names import COCO
from rfdetr.errors import WeightsError
from rfdetr.models.detector import Detector
from rfdetr.version import __version__
from rfdetr.weights.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from rfdetr.weights.names import to_published
from tests.tiny import TINY

PETS = ClassTable.from_categories([(3, "cat"), (7, "dog")])


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    settings = {"epochs": 3, "dataset_dir": "pets", "lr": 1e-4}
    return Checkpoint(Detector(TINY).state_dict(), TINY, PETS, settings, run={"step": 7, "moments": [torch.ones(2)]})


@pytest.fixture
def file(checkpoint: Checkpoint, tmp_path: Path) -> Path:
    path = tmp_path / "checkpoint.pth"
    save_checkpoint(path, checkpoint)
    return path


def test_what_was_saved_is_loaded_bit_by_bit(file: Path, checkpoint: Checkpoint) -> None:
    loaded = load_checkpoint(file)
    assert loaded.weights.keys() == checkpoint.weights.keys()
    assert all(torch.equal(value, checkpoint.weights[name]) for name, value in loaded.weights.items())
    assert loaded.config == checkpoint.config
    assert loaded.classes == checkpoint.classes
    assert loaded.settings.items() >= {**checkpoint.settings, "class_names": ["cat", "dog"]}.items()
    assert loaded.run is not None
    assert loaded.run["step"] == 7
    assert torch.equal(loaded.run["moments"][0], torch.ones(2))


def test_the_file_has_the_published_layout(file: Path, checkpoint: Checkpoint) -> None:
    content = torch.load(file, weights_only=True)
    assert list(content["model"]) == list(to_published(checkpoint.weights))
    assert "backbone.0.encoder.encoder.encoder.layer.0.attention.attention.query.weight" in content["model"]
    assert content["args"]["class_names"] == ["cat", "dog"]
    assert content["model_name"] == "RFDETRNano"
    assert content["model_config"]["resolution"] == content["args"]["resolution"] == TINY.resolution
    assert content["rfdetr_version"] == __version__
    assert content["class_table"] == {"category_ids": [3, 7], "names": ["cat", "dog"], "class_ids": [0, 1]}


def test_tensors_are_written_alone_not_with_the_memory_they_are_a_view_of(file: Path) -> None:
    numbers = sum(tensor.numel() for tensor in Detector(TINY).state_dict().values())
    assert file.stat().st_size < 4 * numbers + 200_000


def test_a_file_without_a_run_has_none(checkpoint: Checkpoint, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "best.pth", Checkpoint(checkpoint.weights, TINY, PETS))
    loaded = load_checkpoint(tmp_path / "best.pth")
    assert loaded.run is None
    assert "run" not in torch.load(tmp_path / "best.pth", weights_only=True)


def test_ours_hold_their_config(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds its config"):
        save_checkpoint(tmp_path / "a.pth", Checkpoint({}))


@pytest.fixture
def published() -> dict[str, Tensor]:
    """Weights of others, with three logits."""
    return to_published(Detector(TINY.replace(num_classes=2)).state_dict())


@pytest.mark.parametrize(
    ("extra", "names"),
    [
        pytest.param({}, None, id="weights alone"),
        pytest.param({"args": {"class_names": ["x", "y"]}}, ("x", "y"), id="settings as a dict"),
        pytest.param({"args": argparse.Namespace(class_names=["x", "y"])}, ("x", "y"), id="as an argparse namespace"),
        pytest.param({"args": types.SimpleNamespace(class_names=["x"])}, ("x",), id="as a simple namespace"),
        pytest.param({"hyper_parameters": {"class_names": ["x"]}}, ("x",), id="as Lightning's hyper-parameters"),
        pytest.param({"args": {"class_names": "person"}}, ("person",), id="a single name"),
        pytest.param({"args": {"class_names": []}}, None, id="no names"),
        pytest.param({"args": {"class_names": ["a", "b", "c", "d"]}}, None, id="more names than logits"),
        pytest.param({"args": {"class_names": [["a"]]}}, None, id="no names but lists"),
        pytest.param({"args": None, "epoch": 3, "optimizer": {}}, None, id="no settings"),
    ],
)
def test_files_of_others(
    published: dict[str, Tensor], tmp_path: Path, extra: dict[str, Any], names: tuple[str, ...] | None
) -> None:
    path = tmp_path / "published.pth"
    torch.save({"model": published, **extra}, path)
    loaded = load_checkpoint(path)
    assert all(torch.equal(tensor, published[name]) for name, tensor in to_published(loaded.weights).items())
    assert loaded.config is None
    assert loaded.run is None
    assert (loaded.classes and loaded.classes.names) == names


@pytest.mark.parametrize("names", [[], list(COCO.names)], ids=["without names", "with COCO's names"])
def test_91_logits_are_those_of_the_published_coco_weights(tmp_path: Path, names: list[str]) -> None:
    weights = to_published(Detector(TINY.replace(num_classes=90)).state_dict())
    torch.save({"model": weights, "args": {"class_names": names}}, tmp_path / "coco.pth")
    assert load_checkpoint(tmp_path / "coco.pth").classes == COCO


def test_a_safetensors_file_holds_the_same_facts(checkpoint: Checkpoint, tmp_path: Path) -> None:
    unicode = ClassTable((3, 7), ("猫", 'chien d\'arrêt "x"\n'), (0, 1))
    for name in ("best.pth", "best.safetensors"):
        save_checkpoint(tmp_path / name, replace(checkpoint, run=None, classes=unicode))
    torch_file, safetensors_file = (load_checkpoint(tmp_path / name) for name in ("best.pth", "best.safetensors"))
    assert safetensors_file.weights.keys() == torch_file.weights.keys()
    assert all(torch.equal(value, torch_file.weights[name]) for name, value in safetensors_file.weights.items())
    assert replace(safetensors_file, weights={}) == replace(torch_file, weights={})
    assert torch_file.classes == unicode
    with safe_open(tmp_path / "best.safetensors", framework="pt") as file:
        assert file.metadata().keys() == torch.load(tmp_path / "best.pth").keys() - {"model"} | {"format"}


def test_a_safetensors_file_of_others_may_hold_weights_alone(published: dict[str, Tensor], tmp_path: Path) -> None:
    save_file({name: tensor.clone() for name, tensor in published.items()}, tmp_path / "weights.safetensors")
    loaded = load_checkpoint(tmp_path / "weights.safetensors")
    assert loaded.known["patch_size"] == TINY.patch_size
    assert loaded.classes is None


def test_what_is_half_of_the_size_is_loaded_as_it_is(checkpoint: Checkpoint, tmp_path: Path) -> None:
    halves = {name: tensor.bfloat16() for name, tensor in checkpoint.weights.items()}
    for name in ("half.pth", "half.safetensors"):
        save_checkpoint(tmp_path / name, replace(checkpoint, weights=halves, run=None))
        loaded = load_checkpoint(tmp_path / name).weights
        assert all(
            torch.equal(loaded[name], tensor) and loaded[name].dtype == tensor.dtype for name, tensor in halves.items()
        )


def own_content() -> dict[str, Any]:
    return {"model": to_published(Detector(TINY).state_dict()), "config": TINY.plain()}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param(
            {"config": {**TINY.plain(), "zoom": 2}},
            "written by another version of this library, or damaged: ModelConfig: zoom: no such setting.",
            id="a setting of another version",
        ),
        pytest.param(
            {"config": [1]},
            "written by another version of this library, or damaged: 'list' object has no attribute 'items'",
            id="no settings",
        ),
        pytest.param(
            {"class_table": {"names": ["cat"]}},
            "written by another version of this library, or damaged: 'category_ids'",
            id="half a class table",
        ),
        pytest.param(
            {"class_table": {"category_ids": [1], "names": [["cat"]], "class_ids": [0]}},
            "written by another version of this library, or damaged: class_table: not (category id, name, class id)",
            id="no names in it",
        ),
        pytest.param(
            {"class_table": {"category_ids": [1], "names": ["cat"], "class_ids": [5]}},
            "damaged: its weights are not of its class_table",
            id="a class without a logit",
        ),
        pytest.param(
            {"config": TINY.replace(num_queries=10**9, dec_n_points=10**9).plain()},
            "damaged: its weights are not of its sampling_points, num_queries",
            id="settings that would take all memory",
        ),
        pytest.param(
            {"config": {**TINY.plain(), "resolution": [[["deep"]]]}},
            "written by another version of this library, or damaged: "
            "ModelConfig: resolution: required. Side of the square input in pixels; "
            "a multiple of patch_size x num_windows.",
            id="a setting that is no value",
        ),
        pytest.param(
            {"model_config": {"encoder": "resnet"}, "config": None},
            "its encoder 'resnet' is none of dinov2_windowed_small, dinov2_windowed_base",
            id="another encoder",
        ),
        pytest.param(
            {"model_config": {"resolution": "wide"}, "config": None, "model_name": "RFDETRNano"},
            "damaged: ModelConfig: resolution: input should be a valid integer, "
            "unable to parse string as an integer, got 'wide'",
            id="a wrong setting of others",
        ),
    ],
)
def test_a_file_that_contradicts_itself(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = tmp_path / "file.pth"
    torch.save({name: value for name, value in {**own_content(), **changes}.items() if value is not None}, path)
    with pytest.raises(WeightsError) as caught:
        load_checkpoint(path)
    assert str(caught.value) == f"{path}: {message}"
