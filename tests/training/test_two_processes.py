"""What two processes do together that torchrun has started, against one process."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from rfdetr.weights.checkpoint import load_checkpoint

from .stops import TWO_EPOCHS, assert_same, assert_same_files
from .tiny import STILL, assert_close, gradients_of, train_tiny

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("two_processes")


@pytest.fixture(scope="module")
def said(half_empty: Path, dots: Path, folder: Path) -> list[str]:
    """The lines of both."""
    program = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "tests.training.two_processes"]
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-m", *program, str(half_empty), str(dots), str(folder)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr, done.stderr
    return done.stdout.splitlines()


@pytest.fixture(scope="module")
def seen(said: list[str], folder: Path) -> list[dict[str, Any]]:
    """What each process has seen."""
    return [torch.load(folder / f"{rank}.pt") for rank in (0, 1)]


@pytest.mark.parametrize("name", ["half_empty", "dots"])
def test_their_gradient_is_that_of_one_process(
    name: str, seen: list[dict[str, Any]], folder: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    seed = yaml.safe_load((folder / name / "settings.yaml").read_text())["seed"]
    expected = gradients_of(request.getfixturevalue(name), tmp_path, batch_size=4, seed=seed)
    for process in seen:
        assert_close(process[name]["gradients"], expected)


def test_metrics_and_losses_are_those_of_all_images_counted_once(
    seen: list[dict[str, Any]], dots: Path, folder: Path, tmp_path: Path
) -> None:
    """Three images, of which one process has two."""
    seed = yaml.safe_load((folder / "dots" / "settings.yaml").read_text())["seed"]
    expected = train_tiny(dots, tmp_path, batch_size=4, seed=seed, **STILL)[0].history[-1]
    assert 0 < expected["val/mAP_50_95"] < 1
    losses = {name: value for name, value in expected.items() if "loss" in name}
    for process in seen:
        row = process["dots"]["row"]
        assert {name: row[name] for name in losses} == pytest.approx(losses, rel=1e-4)
        assert {**row, **losses} == expected


def test_images_that_cannot_be_read_are_counted_over_both(
    seen: list[dict[str, Any]], said: list[str], folder: Path
) -> None:
    for process in seen:
        assert process["damaged"]["metrics"]["num_images"] == 2
        assert process["damaged"]["metrics"]["num_unreadable"] == 1
        first, *lines = process["damaged"]["error"].splitlines()
        assert first.startswith("2 of 8 images of the train split cannot be read, more than max_bad_images=1 allows.")
        assert sorted(line.split("/")[-1][:5] for line in lines) == ["2.png", "5.png"]
    state = load_checkpoint(folder / "refused" / "checkpoint.pth").run
    assert state is not None
    assert sorted(state["progress"]["unreadable"]["train"]) == [2, 5]
    counts = [line.strip() for line in said if "cannot be read" in line]
    assert counts == ["images that cannot be read: 2 of train (others take their places), 1 of valid (left out)"] * 2


def test_both_have_the_same_weights_and_history(seen: list[dict[str, Any]], folder: Path) -> None:
    first, second = seen
    for run in ("straight", "stopped"):
        assert_same(dict(first[run]["weights"]), dict(second[run]["weights"]))
    assert first["straight"]["history"] == second["straight"]["history"]
    assert_same(load_checkpoint(folder / "straight" / "checkpoint.pth").weights, dict(first["straight"]["weights"]))


def test_a_run_that_one_of_them_stops_ends_as_the_straight_one(seen: list[dict[str, Any]], folder: Path) -> None:
    assert [process["stopped"]["ends"] for process in seen] == [[143] * 3] * 2
    assert_same_files(folder / "stopped", folder / "straight")


def test_one_process_can_go_on_with_the_run_of_two(
    seen: list[dict[str, Any]], dots: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result, _ = train_tiny(dots, folder / "interrupted", resume="auto", **TWO_EPOCHS)
    assert [row["step"] for row in result.history] == [5, 10]
    assert "resume: changed: batch_size 1 -> 2\n" in capsys.readouterr().out


def test_the_error_of_one_ends_both(seen: list[dict[str, Any]]) -> None:
    assert [process["failed"]["error"] for process in seen] == [
        "TrainingError: process 1: ValueError: a disk is gone",
        "ValueError: a disk is gone",
    ]
    assert all(process["failed"]["seconds"] < 30 for process in seen)


def test_each_line_is_said_once(said: list[str]) -> None:
    openings = [line for line in said if line.startswith("RF-DETR nano, ")]
    assert len(openings) == 5 + 4 + 1
    stops = [line.split(";")[0] for line in said if line.startswith("stopped by")]
    assert stops == [  # several processes are asked before a step, as they exchange numbers there
        "stopped by SIGTERM after epoch 1, step 3 of 5",
        "stopped by SIGTERM after epoch 1, step 5 of 5",
        "stopped by SIGTERM after epoch 2, step 3 of 5",
    ]
    epochs = [line.split()[1] for line in said if line.startswith("epoch")]
    assert epochs == ["1/1", "1/1", *["1/2", "2/2"] * 3]
