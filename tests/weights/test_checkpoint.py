import argparse
import pickle
import types
from pathlib import Path
from typing import Any

import pytest
import torch

from rfdetr.classes import ClassTable
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
    assert loaded.settings == {**checkpoint.settings, "class_names": ["cat", "dog"]}
    assert loaded.run is not None
    assert loaded.run["step"] == 7
    assert torch.equal(loaded.run["moments"][0], torch.ones(2))


def test_the_file_has_the_published_layout(file: Path, checkpoint: Checkpoint) -> None:
    content = torch.load(file, weights_only=True)
    assert list(content["model"]) == list(to_published(checkpoint.weights))
    assert "backbone.0.encoder.encoder.encoder.layer.0.attention.attention.query.weight" in content["model"]
    assert content["args"]["class_names"] == ["cat", "dog"]
    assert content["model_name"] == "RFDETRNano"
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


@pytest.mark.parametrize(
    ("extra", "names"),
    [
        pytest.param({}, None, id="weights alone"),
        pytest.param({"args": {"class_names": ["x", "y"]}}, ("x", "y"), id="settings as a dict"),
        pytest.param({"args": argparse.Namespace(class_names=["x", "y"])}, ("x", "y"), id="as an argparse namespace"),
        pytest.param({"args": types.SimpleNamespace(class_names=["x"])}, ("x",), id="as a simple namespace"),
        pytest.param({"args": {"class_names": "person"}}, ("person",), id="a single name"),
        pytest.param({"args": {"class_names": []}}, None, id="no names"),
        pytest.param({"args": None, "epoch": 3, "optimizer": {}}, None, id="no settings"),
    ],
)
def test_files_of_others(tmp_path: Path, extra: dict[str, Any], names: tuple[str, ...] | None) -> None:
    path = tmp_path / "published.pth"
    torch.save({"model": {"class_embed.bias": torch.ones(3)}, **extra}, path)
    loaded = load_checkpoint(path)
    assert torch.equal(loaded.weights["class_embed.bias"], torch.ones(3))
    assert loaded.config is None
    assert loaded.run is None
    assert (loaded.classes and loaded.classes.names) == names


class RunsCode:
    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("this would run",)


def damaged(path: Path, whole: bytes, kind: str) -> None:
    content = {
        "cut short": whole[: len(whole) // 2],
        "empty": b"",
        "a web page": b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
        "text": b"not a checkpoint\n",
        "zeros": bytes(1000),
        "a pickle cut short": pickle.dumps({"model": list(range(1000))})[:500],
    }
    path.write_bytes(content[kind])


@pytest.mark.parametrize("kind", ["cut short", "empty", "a web page", "text", "zeros", "a pickle cut short"])
def test_a_file_that_is_no_checkpoint(file: Path, kind: str) -> None:
    damaged(file, file.read_bytes(), kind)
    with pytest.raises(WeightsError) as caught:
        load_checkpoint(file)
    message = str(caught.value)
    assert message.startswith((f"{file}: damaged or not a checkpoint: ", f"{file}: not a checkpoint, or one that "))
    assert "\n" not in message


def test_no_code_of_a_file_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "evil.pth"
    torch.save({"model": {}, "args": RunsCode()}, path)
    with pytest.raises(WeightsError) as caught:
        load_checkpoint(path)
    assert str(caught.value).startswith(f"{path}: not a checkpoint, or one that would run code when read: ")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param([1, 2], "not a checkpoint: it holds a list", id="a list"),
        pytest.param({"a": 1}, "not a checkpoint of RF-DETR: it has no weights under 'model'", id="something else"),
        pytest.param({"model": {"a": 1}}, "not a checkpoint of RF-DETR: it has no weights under 'model'", id="numbers"),
        pytest.param(
            {"model": {}, "config": {**TINY.plain(), "zoom": 2}},
            "written by another version of this library, or damaged: ModelConfig: zoom: no such setting.",
            id="a setting of another version",
        ),
        pytest.param(
            {"model": {}, "class_table": {"names": ["cat"]}},
            "written by another version of this library, or damaged: 'category_ids'",
            id="half a class table",
        ),
    ],
)
def test_a_file_that_holds_something_else(tmp_path: Path, content: object, message: str) -> None:
    path = tmp_path / "file.pth"
    torch.save(content, path)
    with pytest.raises(WeightsError) as caught:
        load_checkpoint(path)
    assert str(caught.value) == f"{path}: {message}"


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(WeightsError) as caught:
        load_checkpoint(tmp_path / "missing.pth")
    assert str(caught.value) == f"{tmp_path / 'missing.pth'}: no such file"
