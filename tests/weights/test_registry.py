from pathlib import Path

import pytest

from rfdetr.config.presets import PRESETS
from rfdetr.errors import WeightsError
from rfdetr.weights.registry import PUBLISHED, cache_dir, default_file


@pytest.mark.parametrize(
    ("size", "name"),
    [
        ("nano", "rf-detr-nano.pth"),
        ("small", "rf-detr-small.pth"),
        ("medium", "rf-detr-medium.pth"),
        ("large", "rf-detr-large-2026.pth"),
        ("base", "rf-detr-base.pth"),
        ("large-deprecated", "rf-detr-large.pth"),
        ("seg-preview", "rf-detr-seg-preview.pt"),
        ("seg-nano", "rf-detr-seg-nano.pt"),
        ("seg-small", "rf-detr-seg-small.pt"),
        ("seg-medium", "rf-detr-seg-medium.pt"),
        ("seg-large", "rf-detr-seg-large.pt"),
        ("seg-xlarge", "rf-detr-seg-xlarge.pt"),
        ("seg-2xlarge", "rf-detr-seg-xxlarge.pt"),
    ],
)
def test_each_size_has_its_weights(size: str, name: str) -> None:
    assert default_file(size).name == name


def test_every_preset_has_weights() -> None:
    assert all(default_file(size).size == size for size in PRESETS)


def test_files_are_told_apart_by_name_path_and_digest() -> None:
    for values in zip(*((file.name, file.path, file.md5) for file in PUBLISHED.values()), strict=True):
        assert len(set(values)) == len(PUBLISHED) == 15


def test_an_unknown_size_gets_a_suggestion() -> None:
    with pytest.raises(WeightsError) as error:
        default_file("mediun")
    assert str(error.value) == (
        "size 'mediun' has no published weights. Did you mean 'medium'? pretrain_weights=None trains from scratch"
    )


@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        pytest.param({"RF_HOME": "/a", "ROBOFLOW_HOME": "/b"}, Path("/a"), id="RF_HOME first"),
        pytest.param({"ROBOFLOW_HOME": "/b"}, Path("/b"), id="then ROBOFLOW_HOME"),
        pytest.param({"RF_HOME": ""}, Path.home() / ".roboflow" / "models", id="empty counts as unset"),
        pytest.param({"RF_HOME": "~/weights"}, Path.home() / "weights", id="the home directory is expanded"),
    ],
)
def test_cache_dir(variables: dict[str, str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RF_HOME", "ROBOFLOW_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert cache_dir() == folder
