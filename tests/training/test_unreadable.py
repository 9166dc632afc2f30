"""A run on a dataset of which some images turn out to be unreadable: it goes on, says so, and ends if they are many."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow import MlflowClient
from PIL import Image

from rfdetr.config.model import ModelSettings
from rfdetr.data.layout import SPLITS
from rfdetr.data.reading import read_split
from rfdetr.errors import ImageError
from rfdetr.training.run import train
from rfdetr.weights.checkpoint import load_checkpoint

from ..data.tiny_coco import annotation, image, write_coco
from .stops import after_steps, assert_same_files, train_on
from .tiny import CPU, tiny_config, tiny_detector, train_tiny

SETTINGS: dict[str, Any] = {"epochs": 2, "batch_size": 2, "augment": "default", "seed": 2}
BAD = {"train": (2, 5), "valid": (1,)}


def draw_split(root: Path, split: str, count: int, bad: tuple[int, ...]) -> None:
    images = [image(number, file_name=f"{number}.jpg") for number in range(count)]
    write_coco(root, split, images, [annotation(number, image_id=number) for number in range(count)])
    for file in (root / split).glob("*.png"):
        file.unlink()
    for number in range(count):
        path = root / split / f"{number}.jpg"
        pixels = np.random.default_rng(number).integers(0, 256, (40, 60, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
        if number in bad:
            path.write_bytes(path.read_bytes()[:-900])


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """Ten pictures for training, three for validation; the pixels of some end too early."""
    root = tmp_path / "damaged"
    draw_split(root, "train", 10, BAD["train"])
    draw_split(root, "valid", 3, BAD["valid"])
    return root


def warnings_of(said: str) -> list[str]:
    return sorted(line.split("/damaged/")[1].split(":")[0] for line in said.splitlines() if "/damaged/" in line)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_each_is_named_once_and_counted_after_every_epoch(
    num_workers: int, damaged: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result, _ = train_tiny(damaged, tmp_path / "run", num_workers=num_workers, **SETTINGS)
    shown = capsys.readouterr()
    assert warnings_of(shown.err) == ["train/2.jpg", "train/5.jpg", "valid/1.jpg"]
    assert f"{damaged}/train/2.jpg: cannot be read: " in shown.err
    line = "    images that cannot be read: 2 of train (others take their places), 1 of valid (left out)"
    assert shown.out.splitlines().count(line) == 2
    assert [row["step"] for row in result.history] == [5, 10]
    assert (result.metrics["num_images"], result.metrics["num_objects"], result.metrics["num_unreadable"]) == (2, 2, 1)


def test_a_stopped_run_ends_as_the_straight_one(
    damaged: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train_tiny(damaged, tmp_path / "straight", num_workers=2, **SETTINGS)
    capsys.readouterr()
    with after_steps(2, 5, 8):
        train_on(damaged, tmp_path / "stopped", **SETTINGS)
    assert warnings_of(capsys.readouterr().err) == ["train/2.jpg", "train/5.jpg", "valid/1.jpg"]
    assert_same_files(tmp_path / "stopped", tmp_path / "straight")


def test_more_than_max_bad_images_end_the_run(
    damaged: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Once they are mended, it can go on."""
    folder = tmp_path / "run"
    with pytest.raises(
        ImageError, match=r"^2 of 10 images of the train split cannot be read, .*max_bad_images=1 "
    ) as it:
        train_tiny(damaged, folder, max_bad_images=1, **SETTINGS)
    assert {line.split("/train/")[1].split(":")[0] for line in str(it.value).splitlines()[1:]} == {"2.jpg", "5.jpg"}
    state = load_checkpoint(folder / "checkpoint.pth").run
    assert state is not None
    assert state["progress"]["step"] > 0
    assert sorted(state["progress"]["unreadable"]["train"]) == [2, 5]
    with pytest.raises(ImageError, match=r"^2 of 10 images"):  # and no step is made
        train_tiny(damaged, folder, max_bad_images=1, resume="auto", **SETTINGS)

    Image.new("RGB", (60, 40)).save(damaged / "train" / "2.jpg")
    capsys.readouterr()
    result, _ = train_tiny(damaged, folder, max_bad_images=1, resume="auto", **SETTINGS)
    assert len(result.history) == 2
    assert "cannot be read: 1 of train (" in capsys.readouterr().out


def test_a_run_that_fails_in_its_test_has_failed_for_the_loggers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    data = tmp_path / "data"
    for split, count, bad in (("train", 10, ()), ("valid", 3, ()), ("test", 2, (0,))):
        draw_split(data, split, count, bad)
    train_split, valid_split, test_split = (read_split(data, split) for split in SPLITS)
    config = tiny_config(data, tmp_path / "run", mlflow=True, run_test=True, max_bad_images=0, **SETTINGS)
    with pytest.raises(ImageError, match="1 of 2 images of the test split cannot be read"):
        train(tiny_detector(1), train_split, valid_split, config, ModelSettings(), CPU, test_split)
    (run,) = MlflowClient(str(tmp_path / "run" / "mlruns")).search_runs(["0"])
    assert run.info.status == "FAILED"


def test_none_are_allowed_where_max_bad_images_is_0(damaged: Path, tmp_path: Path) -> None:
    draw_split(whole := tmp_path / "other", "train", 4, ())
    (damaged / "valid").rename(whole / "valid")
    with pytest.raises(ImageError, match=r"^1 of 3 images of the valid split cannot be read"):
        train_tiny(whole, tmp_path / "run", max_bad_images=0, **SETTINGS)
    state = load_checkpoint(tmp_path / "run" / "checkpoint.pth").run
    assert state is not None
    assert state["progress"]["step_in_epoch"] == 5  # trained, not evaluated
