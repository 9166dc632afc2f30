"""A run on tar shards is the run on the folder that they were made from, to the last bit."""

from pathlib import Path

from rfdetr.config.datasets import ConvertConfig
from rfdetr.data.writing.convert import convert

from .stops import TWO_EPOCHS, after_steps, assert_same_files, train_on
from .tiny import train_tiny


def test_a_stopped_run_on_shards_is_the_straight_one_on_the_folder(dots: Path, tmp_path: Path) -> None:
    shards = tmp_path / "shards"
    convert(ConvertConfig(dataset_dir=dots, output_dir=shards, shards=3))
    settings = {**TWO_EPOCHS, "epochs": 1, "skip_best_epochs": 0}
    train_tiny(dots, tmp_path / "straight", **settings)
    with after_steps(3):
        ends = train_on(shards, tmp_path / "stopped", **settings)
    assert ends == [143]
    assert_same_files(tmp_path / "stopped", tmp_path / "straight")
