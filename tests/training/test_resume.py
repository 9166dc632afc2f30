"""A run that stops and goes on ends as one that has never stopped, to the last bit."""

import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch

from rfdetr.errors import ConfigError, WeightsError
from rfdetr.models.detector import Detector
from rfdetr.training.epoch import EMA, REGULAR
from rfdetr.training.run import TrainingResult
from rfdetr.training.run_dir import RunDir
from rfdetr.training.schedules import lr_factor
from rfdetr.weights.checkpoint import load_checkpoint

from ..data.tiny_coco import write_coco
from .stops import (
    EVERYTHING,
    STEPS_PER_EPOCH,
    PowerCutError,
    after_steps,
    assert_same,
    assert_same_files,
    cut_power,
    in_evaluations,
    train_on,
)
from .tiny import TINY, recorded_gradients, tiny_config, tiny_detector, train_tiny

Stop = Callable[[], AbstractContextManager[None]]


@pytest.fixture(scope="module")
def cut(dots: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The folder of the same run, its power cut in the fourth epoch; and the best average from before the third."""
    folder = tmp_path_factory.mktemp("runs") / "cut"
    older = folder.with_name("older.pth")
    with after_steps(2 * STEPS_PER_EPOCH + 1, 3 * STEPS_PER_EPOCH + 2, end=cut_power):
        for _ in range(2):
            with pytest.raises(PowerCutError):
                train_tiny(dots, folder, resume="auto", **EVERYTHING)
            if not older.exists():
                shutil.copy(folder / "checkpoint_best_ema.pth", older)
    return folder, older


@pytest.fixture
def cut_run(cut: tuple[Path, Path], tmp_path: Path) -> RunDir:
    """A copy of it to go on with."""
    return RunDir(Path(shutil.copytree(cut[0], tmp_path / "run")))


def test_what_is_compared_tells_one_state_from_another(straight: TrainingResult) -> None:
    """Best weights of different epochs, different scores each time, an early end: or equality would prove little."""
    state = load_checkpoint(straight.output_dir / "checkpoint.pth").run
    assert state is not None
    best = state["progress"]["best"]
    assert {kind: best[kind]["step"] for kind in best} == {REGULAR: 2 * STEPS_PER_EPOCH, EMA: 3 * STEPS_PER_EPOCH}
    assert len({row["val/ema_mAP_50_95"] for row in straight.history}) == len(straight.history) == 4
    assert state["progress"]["epoch"] < EVERYTHING["epochs"]


# Stopping and going on


@pytest.mark.parametrize(
    ("stop", "settings", "ends"),
    [
        pytest.param(lambda: after_steps(2, 5, 13, 20), {}, [143] * 4, id="within epochs and at their ends"),
        pytest.param(lambda: in_evaluations(3), {}, [143], id="during an evaluation"),
        pytest.param(
            lambda: after_steps(9, end=cut_power), {"checkpoint_every_steps": 3}, [None], id="power cut after a saving"
        ),
    ],
)
def test_a_stopped_run_ends_as_the_straight_one(
    stop: Stop, settings: dict[str, Any], ends: list[int | None], dots: Path, straight: TrainingResult, tmp_path: Path
) -> None:
    with stop():
        assert train_on(dots, tmp_path, **EVERYTHING, **settings) == ends
    assert_same_files(tmp_path, straight.output_dir)


def test_another_number_of_workers_changes_nothing(
    cut_run: RunDir, dots: Path, straight: TrainingResult, capsys: pytest.CaptureFixture[str]
) -> None:
    train_on(dots, cut_run.path, num_workers=2, **EVERYTHING)
    assert "resume: changed: num_workers 0 -> 2\n" in capsys.readouterr().out
    assert_same_files(cut_run.path, straight.output_dir)


# What a killed process may leave


def test_leftovers_of_a_killed_process_are_removed(
    cut_run: RunDir, dots: Path, straight: TrainingResult, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("checkpoint.pth", "checkpoint_3.pth", "checkpoint_best_ema.pth", "metrics.csv", "settings.yaml")
    for name in names:
        (cut_run.path / f".{name}.a1b2c3.part").write_bytes(b"half")
    train_on(dots, cut_run.path, **EVERYTHING)
    assert_same_files(cut_run.path, straight.output_dir)
    assert f"resume: {cut_run.last}, from epoch 4\n" in capsys.readouterr().out


@pytest.mark.parametrize("left", ["older", "damaged"])
def test_best_weights_that_were_not_yet_written_are_those_of_the_state(
    left: str, cut: tuple[Path, Path], cut_run: RunDir, dots: Path, straight: TrainingResult
) -> None:
    """The third epoch had the best average, and the process was killed after saving the state and before that."""
    best = cut_run.best(EMA)
    if left == "older":
        shutil.copy(cut[1], best)
    else:
        best.write_bytes(best.read_bytes()[:1000])
    train_on(dots, cut_run.path, **EVERYTHING)
    assert_same_files(cut_run.path, straight.output_dir)


@pytest.mark.parametrize("damaged", [["checkpoint.pth"], ["checkpoint.pth", "checkpoint_3.pth"]], ids=len)
def test_a_damaged_state_gives_way_to_the_newest_whole_one(
    damaged: list[str], cut_run: RunDir, dots: Path, straight: TrainingResult, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in damaged:
        path = cut_run.path / name
        path.write_bytes(path.read_bytes()[:-1000])
    train_on(dots, cut_run.path, **EVERYTHING)
    assert_same_files(cut_run.path, straight.output_dir)
    shown = capsys.readouterr()
    warnings = [line for line in shown.err.splitlines() if line.endswith("; looking for an older one")]
    assert [f"resume: {cut_run.path / name}: " in line for name, line in zip(damaged, warnings, strict=True)]
    assert f"resume: {cut_run.numbered(4 - len(damaged))}, from epoch {5 - len(damaged)}\n" in shown.out


def test_the_best_of_an_abandoned_future_do_not_count(dots: Path, straight: TrainingResult, tmp_path: Path) -> None:
    """Back to the second epoch; the best average was that of the third."""
    shutil.copytree(straight.output_dir, tmp_path / "run")
    train_on(dots, tmp_path / "run", resume=tmp_path / "run" / "checkpoint_2.pth", **EVERYTHING)
    assert_same_files(tmp_path / "run", straight.output_dir)


def test_best_weights_that_are_gone_are_searched_anew(
    cut_run: RunDir, dots: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Those of the second epoch are needed after the third."""
    best = cut_run.best(REGULAR)
    best.unlink()
    train_on(dots, cut_run.path, **{**EVERYTHING, "seed": None})
    shown = capsys.readouterr().err
    assert f"resume: {best} is not the best that this state knows of; the search for it starts anew\n" in shown
    last = load_checkpoint(cut_run.last)
    assert_same(load_checkpoint(best).weights, last.weights)  # the fourth epoch scored 0


# Runs that are done


def test_a_run_that_has_ended_early_stays_as_it_is(
    dots: Path, straight: TrainingResult, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(straight.output_dir, tmp_path / "run")
    with recorded_gradients() as gradients:
        result, _ = train_tiny(dots, tmp_path / "run", tiny_detector(2, seed=1), resume="auto", **EVERYTHING)
    assert gradients == []
    assert result.history == straight.history
    assert result.metrics == straight.metrics
    assert_same_files(tmp_path / "run", straight.output_dir)
    assert "stopped early: no better for 2 epochs (early_stopping_patience)\n" in capsys.readouterr().out


@pytest.mark.parametrize("epochs", [1, 2])
def test_a_run_whose_weights_never_scored_stays_as_it_is(epochs: int, shapes: Path, tmp_path: Path) -> None:
    before, _ = train_tiny(shapes, tmp_path / "run", epochs=epochs, use_ema=False)
    assert before.metrics["mAP_50_95"] == 0
    shutil.copytree(tmp_path / "run", tmp_path / "again")
    after, _ = train_tiny(shapes, tmp_path / "again", epochs=epochs, use_ema=False, resume="auto")
    assert after.metrics == before.metrics
    assert_same_files(tmp_path / "again", tmp_path / "run")


def test_with_more_patience_a_run_that_has_ended_early_goes_on(
    dots: Path, straight: TrainingResult, tmp_path: Path
) -> None:
    shutil.copytree(straight.output_dir, tmp_path / "run")
    result, _ = train_tiny(dots, tmp_path / "run", resume="auto", **{**EVERYTHING, "early_stopping_patience": 3})
    assert [row["epoch"] for row in result.history] == [1, 2, 3, 4, 5]
    assert result.history[:4] == straight.history


# Settings


def test_auto_without_a_checkpoint_is_a_fresh_start(
    dots: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result, _ = train_tiny(dots, tmp_path / "run", resume="auto")
    assert len(result.history) == 1
    assert capsys.readouterr().out.splitlines()[0] == (f"resume: no checkpoint in {tmp_path / 'run'}; a fresh start")


@pytest.fixture(scope="module")
def two_epochs(dots: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of two epochs at a constant rate."""
    folder = tmp_path_factory.mktemp("two_epochs")
    train_tiny(dots, folder, epochs=2, **EXTENDED)
    return folder


EXTENDED: dict[str, Any] = {"batch_size": 2, "lr_drop": 3}


def test_more_epochs_continue_the_steps(
    two_epochs: Path, dots: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As if they had been asked for from the start."""
    shutil.copytree(two_epochs, tmp_path / "run")
    train_tiny(dots, tmp_path / "run", tiny_detector(2, seed=1), epochs=4, resume="auto", **EXTENDED)
    assert "resume: changed: epochs 2 -> 4\n" in capsys.readouterr().out
    result, _ = train_tiny(dots, tmp_path / "straight", epochs=4, **EXTENDED)
    assert_same_files(tmp_path / "run", tmp_path / "straight")
    rates = [row["train/lr"] for row in result.history]
    assert rates == pytest.approx([1e-3, 1e-3, 1e-3, 1e-4])


def test_more_epochs_go_on_along_the_longer_cosine(
    dots: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cosine: dict[str, Any] = {"lr_scheduler": "cosine", "batch_size": 2, "use_ema": False}
    train_tiny(dots, tmp_path, epochs=2, **cosine)
    result, _ = train_tiny(dots, tmp_path, epochs=4, resume="auto", **cosine)
    assert "resume: the learning rate goes on along the cosine over 4 epochs\n" in capsys.readouterr().out
    longer = tiny_config(dots, tmp_path, epochs=4, **cosine)
    rates = [1e-3 * lr_factor(row["step"] - 1, STEPS_PER_EPOCH, longer) for row in result.history]
    assert [row["train/lr"] for row in result.history][2:] == rates[2:]
    assert rates[3] < rates[2] < 0.5e-3


def test_changed_settings_are_taken_and_said(
    two_epochs: Path, dots: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes: dict[str, Any] = {
        "epochs": 3,
        "batch_size": 1,
        "grad_accum_steps": 2,
        "lr": 1e-12,
        "lr_encoder": 1e-12,
        "weight_decay": 0.5,
        "num_workers": 1,
        "lr_drop": 3,
    }
    _, detector = train_tiny(dots, tmp_path, resume=two_epochs / "checkpoint.pth", **changes)
    assert (
        "resume: changed: epochs 2 -> 3, batch_size 2 -> 1, grad_accum_steps 1 -> 2, lr 0.001 -> 1e-12, "
        "lr_encoder 0.001 -> 1e-12, weight_decay 0.0001 -> 0.5, num_workers 0 -> 1\n"
    ) in capsys.readouterr().out
    before = load_checkpoint(two_epochs / "checkpoint.pth").weights
    for name, tensor in detector.state_dict().items():
        assert (tensor - before[name]).abs().max() < 1e-9


def test_unchanged_settings_are_not_mentioned(
    two_epochs: Path, dots: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(two_epochs, tmp_path / "run")
    train_tiny(dots, tmp_path / "run", epochs=2, resume="auto", **EXTENDED)
    assert "resume: changed" not in capsys.readouterr().out


def test_what_a_run_cannot_go_on_with_is_refused_all_at_once(
    two_epochs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = write_coco(write_coco(tmp_path / "data"), "valid")
    last = two_epochs / "checkpoint.pth"
    settings: dict[str, Any] = {"epochs": 2, "seed": 7, "batch_size": 3, "best_metric": "F1"}
    before = {path.name: path.read_bytes() for path in two_epochs.iterdir()}
    with pytest.raises(ConfigError) as caught:
        train_tiny(other, two_epochs, Detector(TINY.replace(num_queries=8)), resume=last, **settings)
    assert str(caught.value).splitlines() == [
        f"resume from {last} has 8 problems:",
        "  classes: the run has blue, red; the dataset cat, dog",
        "  num_queries: the run's model has 10, this one 8",
        "  num_classes: the run's model has 2, this one 4",
        "  epochs: 2 are done already; ask for more than that",
        "  seed: the run has 0; leave seed out",
        "  dataset_dir: the run has 8 training images, this dataset 2; to train on other images, start a new run "
        "from the weights (pretrain_weights)",
        "  batch_size x grad_accum_steps x devices: the run has 2 images per step, these settings 3; "
        "the product has to stay the same",
        "  best_metric: the run has chosen its best by mAP_50_95; leave it",
    ]
    assert {path.name: path.read_bytes() for path in two_epochs.iterdir()} == before
    assert capsys.readouterr().out == ""


def test_parameters_that_learn_in_other_groups_are_refused(two_epochs: Path, dots: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError,
        match=r"resume: lr, lr_encoder, their decays, weight_decay and freeze_encoder group the parameters in another",
    ):
        train_tiny(dots, tmp_path, epochs=9, batch_size=2, lr_vit_layer_decay=0.5, resume=two_epochs / "checkpoint.pth")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        pytest.param("checkpoint_best_total.pth", None, "holds weights alone, no state of a run", id="best weights"),
        pytest.param("other.pth", None, "no such file", id="missing"),
        pytest.param("text.pth", b"hello", "is a text file, not weights", id="text"),
    ],
)
def test_what_is_no_state_of_a_run(
    name: str, content: bytes | None, message: str, two_epochs: Path, dots: Path, tmp_path: Path
) -> None:
    shutil.copytree(two_epochs, tmp_path / "run")
    path = tmp_path / "run" / name
    if content:
        path.write_bytes(content)
    with pytest.raises(WeightsError, match=f"{name}: {message}"):
        train_tiny(dots, tmp_path / "run", epochs=9, resume=path)


@pytest.mark.parametrize("progress", [{}, {"seed": 0, "speed": 3}, 7, None], ids=str)
def test_the_state_of_another_version_is_named(progress: Any, two_epochs: Path, dots: Path, tmp_path: Path) -> None:
    content = torch.load(two_epochs / "checkpoint.pth")
    content["run"]["progress"] = progress
    torch.save(content, tmp_path / "checkpoint.pth")
    with pytest.raises(WeightsError, match=r"checkpoint.pth: .*of another version"):
        train_tiny(dots, tmp_path / "run", epochs=9, resume=tmp_path / "checkpoint.pth")
