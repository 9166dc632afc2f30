import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from rfdetr.errors import TrainingError
from rfdetr.training.checkpoints import copied
from rfdetr.training.epoch import EMA, REGULAR
from rfdetr.training.run import TrainingResult
from rfdetr.training.run_dir import RunDir
from rfdetr.weights.checkpoint import load_checkpoint

from .stops import PowerCutError, after_steps, assert_same, cut_power, terminate, train_on
from .tiny import tiny_detector, train_tiny

BRIEF: dict[str, Any] = {"epochs": 2, "batch_size": 2}


@pytest.fixture
def finished(straight: TrainingResult) -> RunDir:
    return RunDir(straight.output_dir)


def test_a_numbered_checkpoint_is_the_state_of_its_epoch(finished: RunDir) -> None:
    for epoch in range(1, 5):
        run = load_checkpoint(finished.numbered(epoch)).run
        assert run is not None
        assert run["progress"]["epoch"] == epoch
        assert [row["epoch"] for row in run["progress"]["history"]] == list(range(1, epoch + 1))


def test_the_last_numbered_checkpoint_takes_no_room_of_its_own(finished: RunDir) -> None:
    assert finished.numbered(4).samefile(finished.last)
    assert not finished.numbered(3).samefile(finished.last)


def test_the_best_files_say_when_they_were_reached_and_with_which_metrics(finished: RunDir) -> None:
    best = {kind: load_checkpoint(finished.best(kind)) for kind in (REGULAR, EMA)}
    rows = (load_checkpoint(finished.last).run or {})["progress"]["history"]
    for kind, (epoch, name) in {REGULAR: (2, "val/mAP_50_95"), EMA: (3, "val/ema_mAP_50_95")}.items():
        run = best[kind].run or {}
        assert run["step"] == 5 * epoch
        assert run["metrics"]["mAP_50_95"] == rows[epoch - 1][name]
    assert_same(best[REGULAR].weights, load_checkpoint(finished.numbered(2)).weights)
    total = load_checkpoint(finished.best_total)
    assert_same(total.weights, best[EMA].weights)
    assert_same(total.run, best[EMA].run)
    assert finished.best_total.samefile(finished.best(EMA))


def test_training_goes_on_beside_a_slow_disk_which_gets_the_state_as_it_was(
    dots: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is not done with the first epoch before two steps of the second one are."""
    train_tiny(dots, tmp_path / "quick", checkpoint_interval=1, **BRIEF)
    is_done, fsync = threading.Event(), os.fsync

    def wait_and_sync(file: int) -> None:
        if threading.current_thread() is not threading.main_thread():
            assert is_done.wait(60)
        fsync(file)

    monkeypatch.setattr(os, "fsync", wait_and_sync)
    with after_steps(7, end=is_done.set):
        train_tiny(dots, tmp_path / "slow", checkpoint_interval=1, **BRIEF)
    for name in ("checkpoint_1.pth", "checkpoint_2.pth", "checkpoint_best_ema.pth", "checkpoint_best_regular.pth"):
        quick, slow = (load_checkpoint(tmp_path / run / name) for run in ("quick", "slow"))
        assert_same(quick.weights, slow.weights)
        assert_same(quick.run, slow.run)


def test_what_a_file_has_twice_is_copied_once() -> None:
    tensor = torch.arange(6.0)
    copies = copied({"all": tensor, "part": [tensor.view(2, 3)[1]], "of": 7}, {})
    tensor.zero_()
    assert_same(copies, {"all": torch.arange(6.0), "part": [torch.tensor([3.0, 4.0, 5.0])], "of": 7})
    assert copies["all"].untyped_storage().data_ptr() == copies["part"][0].untyped_storage().data_ptr()


def test_a_file_system_without_links_gets_copies(dots: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "link", refuse)
    train_tiny(dots, tmp_path, checkpoint_interval=2, **BRIEF)
    copy, last = tmp_path / "checkpoint_2.pth", tmp_path / "checkpoint.pth"
    assert not copy.samefile(last)
    assert copy.read_bytes() == last.read_bytes()


@pytest.mark.parametrize(
    ("settings", "saved"),
    [
        pytest.param({}, 5, id="at the end of the epoch"),
        pytest.param({"checkpoint_every_steps": 3}, 6, id="every three steps"),
        pytest.param({"checkpoint_every_minutes": 1e-6}, 7, id="as soon as some time has passed"),
        pytest.param({"checkpoint_every_minutes": 60.0}, 5, id="not yet"),
    ],
)
def test_the_state_is_saved(settings: dict[str, Any], saved: int, dots: Path, tmp_path: Path) -> None:
    with after_steps(8, end=cut_power), pytest.raises(PowerCutError):
        train_tiny(dots, tmp_path, **BRIEF, **settings)
    run = load_checkpoint(tmp_path / "checkpoint.pth").run
    assert run is not None
    assert run["progress"]["step"] == saved


# Files that cannot be written


def wait_until_saved(folder: Path, step: int) -> None:
    deadline = time.monotonic() + 60
    while not is_saved(folder, step):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_saved(folder: Path, step: int) -> bool:
    """All that a run of five steps per epoch has to write after this step, which it does beside the next ones."""
    names = {path.name for path in folder.iterdir()}
    wanted = {"checkpoint.pth"} | ({f"checkpoint_best_{kind}.pth" for kind in (REGULAR, EMA)} if step >= 5 else set())
    if not wanted <= names or any(name.startswith(".") for name in names):
        return False
    run = load_checkpoint(folder / "checkpoint.pth").run
    return run is not None and run["progress"]["step"] == step


@contextmanager
def after_a_step_the_disk_is_full(
    number: int, folder: Path, saved: int, *, end: Callable[[], None] = lambda: None
) -> Iterator[None]:
    """No file can grow beyond some kilobytes any more, as soon as the state after the step `saved` is written."""
    resource = pytest.importorskip("resource")
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    def fill() -> None:
        wait_until_saved(folder, saved)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
        end()

    try:
        with after_steps(number, end=fill):
            yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize(
    ("settings", "step", "end", "last_step"),
    [
        pytest.param({}, 7, lambda: None, 5, id="at the end of an epoch"),
        pytest.param({"checkpoint_every_steps": 1}, 7, lambda: None, 6, id="within an epoch"),
        pytest.param({}, 7, terminate, 5, id="when stopped by a signal"),
        pytest.param({"epochs": 1, "checkpoint_every_steps": 2}, 5, lambda: None, 4, id="in the last state of the run"),
    ],
)
def test_a_full_disk_ends_the_run_and_leaves_the_older_state(
    settings: dict[str, Any], step: int, end: Callable[[], None], last_step: int, dots: Path, tmp_path: Path
) -> None:
    last = tmp_path / "checkpoint.pth"
    with after_a_step_the_disk_is_full(step, tmp_path, last_step, end=end), pytest.raises(TrainingError) as caught:
        train_tiny(dots, tmp_path, **{**BRIEF, **settings})
    assert str(caught.value) == (
        f"{last}: cannot be written: File too large. "
        f"{last} holds an earlier state, complete: go on from it with resume='auto'"
    )
    assert not list(tmp_path.glob(".*"))
    run = load_checkpoint(last).run
    assert run is not None
    assert run["progress"]["step"] == last_step


def test_a_signal_while_the_last_state_is_written_cuts_nothing_off(
    dots: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that is left to do is to write, so the run ends as ever."""
    is_last, fsync = threading.Event(), os.fsync

    def begin_last() -> None:
        wait_until_saved(tmp_path, 5)
        is_last.set()

    def signal_and_sync(file: int) -> None:
        if is_last.is_set() and threading.current_thread() is not threading.main_thread():
            is_last.clear()
            os.kill(os.getpid(), signal.SIGTERM)
        fsync(file)

    monkeypatch.setattr(os, "fsync", signal_and_sync)
    with after_steps(10, end=begin_last):
        result, _ = train_tiny(dots, tmp_path, **BRIEF)
    assert not is_last.is_set()
    run = load_checkpoint(tmp_path / "checkpoint.pth").run
    assert run is not None
    assert run["progress"]["step"] == 10
    assert load_checkpoint(result.best_checkpoint).weights


def test_metrics_that_cannot_be_written_are_in_the_state(dots: Path, tmp_path: Path) -> None:
    metrics = tmp_path / "metrics.csv"

    def obstruct() -> None:
        metrics.unlink()
        metrics.mkdir()

    with after_steps(7, end=obstruct), pytest.raises(TrainingError, match="cannot be written: Is a directory"):
        train_tiny(dots, tmp_path, **BRIEF)
    metrics.rmdir()
    assert train_on(dots, tmp_path, **BRIEF) == []
    assert [line.split(",")[0] for line in metrics.read_text().splitlines()] == ["epoch", "1", "2"]


@pytest.mark.parametrize(
    ("every", "message"),
    [
        pytest.param(None, r"the loss is no longer finite \(epoch 2, step 3\)", id="seen in the next step"),
        pytest.param(1, "the weights are no longer finite after step 7, .*; an earlier state", id="before that"),
    ],
)
def test_weights_that_are_no_longer_finite_are_not_saved(
    every: int | None, message: str, dots: Path, tmp_path: Path
) -> None:
    detector = tiny_detector(2)

    def break_weights() -> None:
        detector.query_feat.weight.data.fill_(torch.nan)

    with after_steps(7, end=break_weights), pytest.raises(TrainingError, match=message):
        train_tiny(dots, tmp_path, detector, checkpoint_every_steps=every, **BRIEF)
    weights = load_checkpoint(tmp_path / "checkpoint.pth").weights
    assert all(tensor.isfinite().all() for tensor in weights.values())
