"""Processes that train, and how they end."""

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rfdetr.training.run import TrainingResult

from .lives import Life
from .stops import EVERYTHING, assert_same_files

REPOSITORY = Path(__file__).resolve().parents[2]


def lived(lives: list[Life], folder: Path) -> list[dict[str, Any]]:
    path = folder / "lives.json"
    path.write_text(json.dumps(lives))
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-m", "tests.training.lives", str(path)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    ends: list[dict[str, Any]] = json.loads(path.read_text())
    return ends


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lives")


@pytest.fixture(scope="module")
def ends(dots: Path, folder: Path) -> list[dict[str, Any]]:
    """Of a run that is killed at some moments and then ends by itself, and of one that is stopped in all ways."""
    moments = random.Random(7)  # noqa: S311 - not cryptography
    run = {**EVERYTHING, "dataset_dir": str(dots), "output_dir": str(folder / "run"), "checkpoint_every_steps": 1}
    killed: list[Life] = [
        {"signals": ["SIGKILL"], "after": moments.uniform(0, 0.6), "settings": {**run, "num_workers": number % 2}}
        for number in range(3)
    ]
    killed.append({"signals": [], "settings": run})
    long = {
        "dataset_dir": str(dots),
        "output_dir": str(folder / "long"),
        "batch_size": 2,
        "num_workers": 2,
        "epochs": 1000,
    }
    stopped: list[Life] = [
        {"signals": ["SIGTERM"], "after_step": True, "settings": long},
        {"signals": ["SIGINT"], "after_step": True, "settings": long},
        {
            "signals": ["SIGTERM", "SIGTERM"],
            "after_step": True,
            "settings": {**long, "num_workers": 0},  # which would notice within five seconds
            "seconds_per_step": 40,
        },
        {"signals": [], "settings": long, "fails": True},
    ]
    return lived(killed + stopped, folder)


def test_a_run_that_is_killed_at_any_moment_ends_as_the_straight_one(
    ends: list[dict[str, Any]], folder: Path, straight: TrainingResult
) -> None:
    statuses = [end["status"] for end in ends[:4]]
    assert statuses[0] == -9
    assert statuses[-1] == 0, ends[3]["said"]
    assert_same_files(folder / "run", straight.output_dir)


@pytest.mark.parametrize(("number", "name", "status"), [(4, "SIGTERM", 143), (5, "SIGINT", 130)])
def test_a_signal_ends_the_run_after_its_step(
    number: int, name: str, status: int, ends: list[dict[str, Any]], folder: Path
) -> None:
    end = ends[number]
    assert end["status"] == status, end["said"]
    noted, stopped = end["said"].splitlines()[-2:]
    assert noted == "rfdetr: stopping after this step and saving; once more ends at once"
    assert stopped.startswith(f"stopped by {name} after epoch ")
    assert stopped.endswith(
        f"; the state is in {folder}/long/checkpoint.pth. Go on with "
        f'resume="auto", or: rfdetr train --config {folder}/long/settings.yaml --resume auto'
    )
    assert "Traceback" not in end["said"]
    assert end["left"] == 0


def test_a_second_signal_ends_it_at_once(ends: list[dict[str, Any]]) -> None:
    end = ends[6]
    assert end["status"] == 143, end["said"]
    assert end["said"].splitlines()[-1] == "rfdetr: stopping after this step and saving; once more ends at once"
    assert end["seconds"] < 10  # its step takes forty
    assert end["left"] == 0


def test_a_program_that_keeps_the_error_of_a_run_ends_all_the_same(ends: list[dict[str, Any]]) -> None:
    """The error keeps the run alive, and with it the processes that load images."""
    end = ends[7]
    assert end["status"] == 0, end["said"]
    assert end["left"] == 0
