import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch.utils.tensorboard  # noqa: F401  # what is not installed is shown by taking it away
import wandb
from mlflow import MlflowClient
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData  # type: ignore[import-untyped]

from rfdetr.config.runs import TrainConfig
from rfdetr.training import loggers as services
from rfdetr.training.loggers import Loggers, open_loggers
from rfdetr.training.run_dir import RunDir

from .wandb_server import as_dict, read_records, serve_run

SERVICES = ("tensorboard", "wandb", "mlflow")
SETTINGS = {"lr": 0.1, "use_ema": True, "lr_scheduler": "step", "class_names": ["a", "b"]}


@pytest.fixture(autouse=True)
def _nobody_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No login and no server but those that a test gives."""
    for name in [name for name in os.environ if name.startswith(("WANDB_", "MLFLOW_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")


@pytest.fixture
def wandb_session() -> Iterator[None]:
    """W&B reads its environment once; afterwards its process ends."""
    wandb.teardown()
    yield
    wandb.teardown()


def open_one(
    service: str,
    folder: Path,
    ids: dict[str, str] | None = None,
    step: int = 0,
    settings: dict[str, Any] | None = None,
    **config: Any,
) -> Loggers:
    chosen = {name: name == service for name in SERVICES}
    train_config = TrainConfig.from_dict({"dataset_dir": "data", "output_dir": folder, **chosen, **config})
    return open_loggers(train_config, RunDir(folder), settings or SETTINGS, {} if ids is None else ids, step)


def log_steps(loggers: Loggers, *steps: int) -> None:
    for step in steps:
        loggers.log({"epoch": step // 10, "step": step, "val/mAP_50_95": step / 100, "val/mAP_small": None}, step)


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "epoch_0001.jpg"
    Image.new("RGB", (40, 30), "red").save(path)
    return path


@pytest.mark.parametrize("service", SERVICES)
def test_a_logger_that_is_not_installed_is_left_out(
    service: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, service, None)
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard")
    loggers = open_one(service, tmp_path)
    log_steps(loggers, 10)
    loggers.close()
    assert capsys.readouterr().err == (
        f"rfdetr: warning: {service}=True, but {service} is not installed; training goes on without it "
        f"(pip install {service})\n"
    )


def read_events(folder: Path) -> EventAccumulator:
    events = EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 0, "tensors": 0})
    events.Reload()
    return events


def points(folder: Path, name: str = "val/mAP_50_95") -> list[tuple[int, float]]:
    return [(event.step, round(event.value, 6)) for event in read_events(folder).Scalars(name)]


def test_tensorboard_shows_curves_pictures_and_settings_as_one_run(tmp_path: Path, picture: Path) -> None:
    loggers = open_one("tensorboard", tmp_path, run="first try")
    loggers.picture("samples", picture, 0)
    log_steps(loggers, 10, 20)
    loggers.close()
    (folder,) = {path.parent for path in tmp_path.rglob("*tfevents*")}
    assert folder == tmp_path / "tensorboard" / "first try"
    events = read_events(folder)
    assert sorted(events.Tags()["scalars"]) == ["epoch", "val/mAP_50_95"]
    assert points(folder) == [(10, 0.1), (20, 0.2)]
    (shown,) = events.Images("samples")
    assert (shown.width, shown.height, shown.encoded_image_string) == (40, 30, picture.read_bytes())
    (text,) = events.Tensors("settings/text_summary")
    assert b"| lr | 0.1 |\n| use_ema | True |" in text.tensor_proto.string_val[0]
    hparams = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    found = HParamsPluginData.FromString(hparams).session_start_info.hparams
    assert (found["lr"].number_value, found["use_ema"].string_value) == (0.1, "True")
    assert found["class_names"].string_value == "['a', 'b']"
    assert "_hparams_/session_end_info" in events.summary_metadata


def test_a_failed_run_has_no_end_in_tensorboard(tmp_path: Path) -> None:
    loggers = open_one("tensorboard", tmp_path)
    log_steps(loggers, 10)
    loggers.close(failed=True)
    assert "_hparams_/session_end_info" not in read_events(tmp_path / "tensorboard").summary_metadata


@pytest.mark.parametrize(
    ("step", "again", "shown"),
    [
        pytest.param(20, (30, 40), [10, 20, 30, 40], id="what came after the checkpoint is replaced"),
        pytest.param(20, (10, 20, 30), [10, 20, 30], id="what came before it stays, handed in again or not"),
        pytest.param(35, (40,), [10, 20, 30, 40], id="in the middle of an epoch"),
        pytest.param(0, (10,), [10], id="another run in the same folder"),
    ],
)
def test_a_resumed_run_has_each_point_once_in_tensorboard(
    step: int, again: tuple[int, ...], shown: list[int], tmp_path: Path
) -> None:
    log_steps(open_one("tensorboard", tmp_path), 10, 20, 30)
    log_steps(open_one("tensorboard", tmp_path, step=step), *again)
    assert [at for at, _ in points(tmp_path / "tensorboard")] == shown


@pytest.mark.parametrize(
    ("run", "folder"),
    [
        pytest.param(None, "tensorboard", id="none"),
        pytest.param("nano, lr 1e-4", "tensorboard/nano_ lr 1e-4", id="plain"),
        pytest.param("../../up", "tensorboard/_.._up", id="up"),
        pytest.param("..", "tensorboard", id="dots"),
        pytest.param("/etc/run", "tensorboard/_etc_run", id="absolute"),
        pytest.param("Läufe/三\0\n", "tensorboard/Läufe_三__", id="letters of any kind"),
        pytest.param("x" * 300, f"tensorboard/{'x' * 60}", id="long"),
    ],
)
def test_the_name_of_a_run_is_a_folder_of_tensorboard(run: str | None, folder: str, tmp_path: Path) -> None:
    open_one("tensorboard", tmp_path, run=run)
    assert [path.parent for path in tmp_path.rglob("*tfevents*")] == [tmp_path / folder]


@pytest.mark.usefixtures("wandb_session")
def test_wandb_offline(
    tmp_path: Path, picture: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    ids: dict[str, str] = {}
    loggers = open_one("wandb", tmp_path, ids, project="cells", run="first try")
    loggers.picture("samples", picture, 0)
    log_steps(loggers, 10, 20)
    loggers.picture("samples", picture, 20)
    loggers.close()
    wandb.teardown()  # its process is done with the file
    records = read_records(next(tmp_path.glob("wandb/*run-*/*.wandb")))
    (run,) = records["run"]
    assert (run.run_id, run.project, run.display_name) == (ids["wandb"], "cells", "first try")
    assert as_dict(run.config.update).items() >= SETTINGS.items()
    rows = [as_dict(row.item) for row in records["history"]]
    assert [row["_step"] for row in rows] == [0, 10, 20]
    assert [row.get("val/mAP_50_95") for row in rows] == [None, 0.1, 0.2]
    assert "val/mAP_small" not in rows[1]
    for row in (rows[0], rows[2]):
        (file,) = tmp_path.glob(f"wandb/*run-*/files/{row['samples/path']}")
        assert file.read_bytes() == picture.read_bytes()
    assert records["exit"][0].exit_code == 0
    assert capfd.readouterr() == ("", "")


@pytest.mark.usefixtures("wandb_session")
def test_wandb_without_a_login_neither_asks_nor_waits(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    loggers = open_one("wandb", tmp_path)
    log_steps(loggers, 10)
    loggers.close()
    assert capfd.readouterr() == (
        "",
        "rfdetr: warning: wandb cannot start: No API key configured. Use `wandb login` to log in; "
        "training goes on without it\n",
    )


@pytest.mark.usefixtures("wandb_session")
def test_a_resumed_run_goes_on_in_wandb_with_each_step_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    with serve_run("abc", last_step=20) as (address, uploads):
        monkeypatch.setenv("WANDB_BASE_URL", address)
        loggers = open_one("wandb", tmp_path, {"wandb": "abc"}, step=10)
        log_steps(loggers, 10, 20, 30)
        loggers.close()
    files = [upload["wandb-history.jsonl"] for upload in uploads if "wandb-history.jsonl" in upload]
    assert [file["offset"] for file in files] == [3]
    assert [json.loads(row)["_step"] for row in files[0]["content"]] == [30]
    assert capfd.readouterr() == (
        f"wandb: {address}/me/p/runs/abc\n",
        "rfdetr: warning: wandb: the run has points up to step 20, which stay; new ones come after them\n",
    )


def stored(folder: Path, ids: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> tuple[MlflowClient, Any]:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    client = MlflowClient((folder / "mlruns").as_uri())
    return client, client.get_run(ids["mlflow"])


def test_mlflow_keeps_curves_pictures_and_settings_in_files(
    tmp_path: Path, picture: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    ids: dict[str, str] = {}
    environment = dict(os.environ)
    loggers = open_one(
        "mlflow", tmp_path, ids, settings={**SETTINGS, "long": "x" * 9000}, project="cells", run="first try"
    )
    loggers.picture("samples", picture, 0)
    log_steps(loggers, 10, 20)
    loggers.log({f"val/AP/{number}": 0.5 for number in range(1500)}, 30)
    loggers.close()
    assert dict(os.environ) == environment
    assert capfd.readouterr() == ("", "")
    client, run = stored(tmp_path, ids, monkeypatch)
    assert client.get_experiment(run.info.experiment_id).name == "cells"
    assert (run.info.run_name, run.info.status) == ("first try", "FINISHED")
    assert run.data.params == {
        "lr": "0.1",
        "use_ema": "True",
        "lr_scheduler": "step",
        "class_names": "['a', 'b']",
        "long": "x" * 6000,
    }
    history = client.get_metric_history(ids["mlflow"], "val/mAP_50_95")
    assert [(metric.step, metric.value) for metric in history] == [(10, 0.1), (20, 0.2)]
    assert len(run.data.metrics) == 2 + 1500
    (file,) = client.list_artifacts(ids["mlflow"], "samples")
    assert Path(client.download_artifacts(ids["mlflow"], file.path)).read_bytes() == picture.read_bytes()


def test_a_resumed_run_goes_on_in_mlflow_with_each_step_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ids: dict[str, str] = {}
    loggers = open_one("mlflow", tmp_path, ids)
    log_steps(loggers, 10, 20)
    loggers.close(failed=True)
    first = dict(ids)
    client, run = stored(tmp_path, ids, monkeypatch)
    assert run.info.status == "FAILED"
    loggers = open_one("mlflow", tmp_path, ids, step=20, settings={**SETTINGS, "lr": 0.2})
    assert ids == first
    assert client.get_run(ids["mlflow"]).info.status == "RUNNING"
    log_steps(loggers, 10, 20, 30)
    loggers.close()
    run = client.get_run(ids["mlflow"])
    assert (run.data.params["lr"], run.data.params["lr from step 20"]) == ("0.1", "0.2")
    assert [metric.step for metric in client.get_metric_history(ids["mlflow"], "epoch")] == [10, 20, 30]


def test_going_back_behind_what_mlflow_has_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ids: dict[str, str] = {}
    log_steps(open_one("mlflow", tmp_path, ids), 10, 20, 30)
    open_one("mlflow", tmp_path, ids, step=10)
    assert capsys.readouterr().err == (
        "rfdetr: warning: mlflow: the run has points up to step 30, which stay; new ones come after them\n"
    )


def test_a_run_that_mlflow_no_longer_has_is_begun_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = {"mlflow": "0" * 32}
    loggers = open_one("mlflow", tmp_path, ids, step=20)
    log_steps(loggers, 10, 20, 30)
    client, run = stored(tmp_path, ids, monkeypatch)
    assert [metric.step for metric in client.get_metric_history(run.info.run_id, "epoch")] == [10, 20, 30]
    client.delete_run(run.info.run_id)
    open_one("mlflow", tmp_path, ids, step=20)
    assert ids["mlflow"] != run.info.run_id


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        pytest.param("train/loss", "train/loss", id="plain"),
        pytest.param("val/AP/Café-crème 2.0", "val/AP/Café-crème 2.0", id="letters of any kind"),
        pytest.param("val/AP/cat (red)", "val/AP/cat _red_", id="signs"),
        pytest.param("val/AP/rider/bicycle", "val/AP/rider_bicycle", id="slashes"),
        pytest.param("val/AP/..", "val/AP/_", id="dots"),
        pytest.param("val/AP/" + "x" * 300, "val/AP/" + "x" * 80, id="long"),
    ],
)
def test_mlflow_takes_any_class_name(name: str, shown: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ids: dict[str, str] = {}
    loggers = open_one("mlflow", tmp_path, ids)
    loggers.log({name: 0.5}, 10)
    assert stored(tmp_path, ids, monkeypatch)[1].data.metrics == {shown: 0.5}


def test_a_server_of_mlflow_that_is_not_there_is_given_up_soon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    loggers = open_one("mlflow", tmp_path)
    log_steps(loggers, 10)
    loggers.close()
    (warning,) = capsys.readouterr().err.splitlines()
    assert warning.startswith("rfdetr: warning: mlflow cannot start: API request to http://127.0.0.1:9/")
    assert warning.endswith("; training goes on without it")


def test_a_folder_that_cannot_be_made_costs_one_logger(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "tensorboard").touch()
    log_steps(open_one("tensorboard", tmp_path), 10)
    assert capsys.readouterr().err == (
        f"rfdetr: warning: tensorboard cannot start: [Errno 17] File exists: '{tmp_path / 'tensorboard'}'; "
        "training goes on without it\n"
    )


class Sleeper:
    """A service that has stopped answering."""

    last_step = -1

    def log(self, *_: Any) -> None:
        time.sleep(2)

    picture = close = log


class Failing:
    """A service that refuses everything."""

    last_step = -1

    def log(self, *_: Any) -> None:
        raise SystemExit("no\nmore  disk.")

    picture = close = log


class Counting:
    """A service that works."""

    last_step = 10

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.pictures: list[int] = []
        self.failed: bool | None = None

    def log(self, _: Any, step: int) -> None:
        self.steps.append(step)

    def picture(self, _: str, __: Path, step: int) -> None:
        self.pictures.append(step)

    def close(self, failed: bool) -> None:
        self.failed = failed


def test_what_fails_or_hangs_is_left_out_and_the_others_go_on(
    picture: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(services, "PATIENCE", 0.2)
    working = Counting()
    loggers = Loggers({"one": Failing(), "two": Sleeper(), "three": working})
    started = time.monotonic()
    log_steps(loggers, 10, 20, 30)
    loggers.picture("samples", picture, 10)
    loggers.picture("samples", picture, 30)
    loggers.close(failed=True)
    assert time.monotonic() - started < 1
    assert (working.steps, working.pictures, working.failed) == ([20, 30], [30], True)
    assert capsys.readouterr().err == (
        "rfdetr: warning: one failed: no more disk; training goes on without it\n"
        "rfdetr: warning: two failed: no answer within 0.2 seconds; training goes on without it\n"
    )


def test_what_cannot_be_closed_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(services, "PATIENCE", 0.2)
    loggers = Loggers({"one": Failing(), "two": Sleeper()})
    loggers.close()
    loggers.close()
    assert capsys.readouterr().err == (
        "rfdetr: warning: one was not closed: no more disk\n"
        "rfdetr: warning: two was not closed: no answer within 0.2 seconds\n"
    )
