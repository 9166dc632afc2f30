"""TensorBoard, Weights & Biases and MLflow, where asked for and installed. None of them can stop or hold up a run."""

import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from pathlib import Path
from socket import gethostname
from threading import Thread
from typing import Any, NamedTuple, Protocol, TypeVar

from PIL import Image

from rfdetr.config.runs import TrainConfig
from rfdetr.console import say, warn
from rfdetr.training.run_dir import RunDir

T = TypeVar("T")
Numbers = Mapping[str, float | int]

# Seconds that a service may take for a call.
PATIENCE = 60.0


class Logger(Protocol):
    """A service. Its calls may raise anything or never return."""

    last_step: int
    """The last step that it has from earlier parts of the run; -1 if there is none."""

    def log(self, row: Numbers, step: int, /) -> None: ...
    def picture(self, name: str, path: Path, step: int, /) -> None: ...
    def close(self, failed: bool, /) -> None: ...


class Start(NamedTuple):
    """What a service learns of the run."""

    config: TrainConfig
    folder: Path
    settings: Mapping[str, Any]
    ids: dict[str, str]
    step: int


class Loggers:
    """The services of a run. One that fails is left out from then on, with a warning."""

    def __init__(self, working: dict[str, Logger]) -> None:
        self._working = working

    def log(self, row: Mapping[str, float | int | None], step: int) -> None:
        """The numbers of a step; None is left out. A service that has the step from before skips it.

        So a run that goes on may log all its rows again, to make up for what a killed process did not get out.
        """
        known = {name: value for name, value in row.items() if value is not None and name != "step"}
        self._each(lambda logger: logger.log(known, step), step)

    def picture(self, name: str, path: Path, step: int) -> None:
        """A JPEG or PNG file."""
        self._each(lambda logger: logger.picture(name, path, step), step)

    def close(self, failed: bool = False) -> None:
        for name, logger in self._working.items():
            try:
                _within_patience(partial(logger.close, failed))
            except (Exception, SystemExit) as error:
                warn(f"{name} was not closed: {_reason(error)}")
        self._working.clear()

    def _each(self, call: Callable[[Logger], None], step: int) -> None:
        for name, logger in list(self._working.items()):
            if step <= logger.last_step:
                continue
            try:
                _within_patience(partial(call, logger))
            except (Exception, SystemExit) as error:
                del self._working[name]
                warn(f"{name} failed: {_reason(error)}; training goes on without it")


def open_loggers(
    config: TrainConfig, run_dir: RunDir, settings: Mapping[str, Any], ids: dict[str, str], step: int
) -> Loggers:
    """The services that the config asks for and that can start, given all settings as hyper-parameters.

    `ids` holds what Weights & Biases and MLflow call the run; a new run's ids are put there. `step` is the optimiser
    step from which the run goes on: what was logged after it is hidden (TensorBoard) or stays, but is never doubled.
    """
    working: dict[str, Logger] = {}
    start = Start(config, run_dir.path, settings, ids, step)
    for name, (package, service) in SERVICES.items():
        if not getattr(config, name):
            continue
        try:
            working[name] = _within_patience(partial(service, import_module(package), start))
        except (Exception, SystemExit) as error:
            reason = f"{name} cannot start: {_reason(error)}; training goes on without it"
            if isinstance(error, ModuleNotFoundError) and error.name == name:
                reason = f"{name}=True, but {name} is not installed; training goes on without it (pip install {name})"
            warn(reason)
    for name, logger in working.items():
        if logger.last_step > step:
            warn(f"{name}: the run has points up to step {logger.last_step}, which stay; new ones come after them")
    return Loggers(working)


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split())[:300].rstrip(".") or type(error).__name__


def _within_patience(call: Callable[[], T]) -> T:
    """Call on a thread that is given up when it takes too long.

    Raises:
        TimeoutError: it did. Or whatever the call raises.
    """
    future: Future[T] = Future()

    def work() -> None:
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)

    thread = Thread(target=work, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    if thread.is_alive():
        raise TimeoutError(f"no answer within {PATIENCE:g} seconds")
    return future.result()


class TensorBoard:
    """An event file in `tensorboard/<run>` of the output folder.

    PyTorch's SummaryWriter writes on a thread of its own, from which a full disk would show as a traceback.
    """

    def __init__(self, module: Any, start: Start) -> None:
        self.last_step = start.step or -1
        self.formats, self.event, session = module.summary, module.writer.Event, module.writer.SessionLog
        self.records = import_module("tensorboard.summary.writer.record_writer").RecordWriter
        folder = start.folder / "tensorboard" / _folder_name(start.config.run or "")
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"events.out.tfevents.{time.time():.6f}.{gethostname()}.{os.getpid()}"
        plain = {name: value if type(value) in (int, float) else str(value) for name, value in start.settings.items()}
        prefix = "val/ema_" if start.config.use_ema else "val/"
        shown = {prefix + name: 0 for name in ("mAP_50_95", "mAP_50", "F1")}
        # In the file with the curves: SummaryWriter.add_hparams makes them a second run, beside that of the curves.
        experiment, beginning, self.success = self.formats.hparams(plain, shown)
        table = ["| setting | value |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in plain.items())]
        self._write(
            {"file_version": "brain.Event:2"},
            # What a killed process has logged after its checkpoint disappears from view.
            {"step": self.last_step + 1, "session_log": session(status=session.START)},
            {"step": start.step, "summary": experiment},
            {"step": start.step, "summary": beginning},
            {"step": start.step, "summary": self.formats.text("settings", "\n".join(table))},
        )

    def log(self, row: Numbers, step: int) -> None:
        kind = self.formats.Summary
        values = [kind.Value(tag=name, simple_value=value) for name, value in row.items()]
        self._write({"step": step, "summary": kind(value=values)})

    def picture(self, name: str, path: Path, step: int) -> None:
        with Image.open(path) as image:
            width, height = image.size
        kind = self.formats.Summary
        content = kind.Image(width=width, height=height, colorspace=3, encoded_image_string=path.read_bytes())
        self._write({"step": step, "summary": kind(value=[kind.Value(tag=name, image=content)])})

    def close(self, failed: bool) -> None:
        if not failed:
            self._write({"summary": self.success})

    def _write(self, *events: Mapping[str, Any]) -> None:
        with self.path.open("ab") as file:
            records = self.records(file)
            for event in events:
                records.write(self.event(wall_time=time.time(), **event).SerializeToString())


def _folder_name(run: str) -> str:
    """The name of a run as that of a folder, which leads nowhere else and is not too long."""
    return re.sub(r"[^\w .-]", "_", run).strip(" .")[:60]


class Wandb:
    """A run of Weights & Biases; its files lie in `wandb/` of the output folder."""

    def __init__(self, module: Any, start: Start) -> None:
        self.module = module
        self.own = module.Settings(
            silent=True,
            console="off",
            reinit="create_new",  # a run that the user has open is left alone
            init_timeout=PATIENCE / 2,
            finish_timeout=PATIENCE / 2,  # at the end of the process, too
            finish_timeout_raises=True,
        )
        with self._silence():  # without it, a terminal is asked for a login
            self.run = module.init(
                id=start.ids.get("wandb"),
                resume="allow" if "wandb" in start.ids else None,
                project=start.config.project,
                name=start.config.run,
                config=dict(start.settings),
                dir=start.folder,
                settings=self.own,
            )
        start.ids["wandb"] = self.run.id
        # Offline, each part of the run has files of its own.
        self.last_step = (start.step or -1) if self.run.offline else self.run.starting_step - 1
        url = None if self.run.offline else self.run.url
        if url:
            say(f"wandb: {url}")

    def log(self, row: Numbers, step: int) -> None:
        self.run.log(dict(row), step=step)

    def picture(self, name: str, path: Path, step: int) -> None:
        self.run.log({name: self.module.Image(str(path))}, step=step)

    def close(self, failed: bool) -> None:
        try:
            with self._silence():
                self.run.finish(exit_code=int(failed))
        except TimeoutError:
            folder = Path(self.run.dir).parent
            raise TimeoutError(f"no connection; `wandb sync '{folder}'` uploads what is missing") from None

    @contextmanager
    def _silence(self) -> Iterator[None]:
        """Without the lines that belong to no run, which the settings of the run do not reach."""
        usual = self.module.setup().settings
        self.module.termsetup(self.own, None)
        try:
            yield
        finally:
            self.module.termsetup(usual, None)


@contextmanager
def _mlflow_environment() -> Iterator[None]:
    """MLflow reads the environment at each call. What the user has set there stands."""
    usual = {
        "MLFLOW_ALLOW_FILE_STORE": "true",  # else files are refused: MLflow recommends a database
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": str(round(PATIENCE / 4)),
    }
    added = {name: value for name, value in usual.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


class Mlflow:
    """A run of MLflow: on the server that `MLFLOW_TRACKING_URI` names, else in `mlruns/` of the output folder."""

    STEP = "rfdetr.step"
    """Tag with the last step logged."""

    @_mlflow_environment()
    def __init__(self, module: Any, start: Start) -> None:
        self.module = module
        store = None if module.is_tracking_uri_set() else (start.folder / "mlruns").resolve().as_uri()
        self.client = module.MlflowClient(store)
        run = self._earlier(start.ids.get("mlflow")) or self.client.create_run(
            self._experiment(start.config.project or "Default"), run_name=start.config.run
        )
        start.ids["mlflow"] = self.run_id = run.info.run_id
        self.last_step = int(run.data.tags.get(self.STEP, -1))
        self._log_settings(start, known=run.data.params)

    def _earlier(self, run_id: str | None) -> Any:
        """The run to go on with; None where there is none, or none any more."""
        if run_id is None:
            return None
        try:
            run = self.client.get_run(run_id)
        except self.module.MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise
        if run.info.lifecycle_stage == "deleted":
            return None
        self.client.update_run(run_id, "RUNNING")
        return run

    def _experiment(self, name: str) -> Any:
        found = self.client.get_experiment_by_name(name)
        return found.experiment_id if found else self.client.create_experiment(name)

    def _log_settings(self, start: Start, known: Mapping[str, str]) -> None:
        """MLflow changes no parameter: a setting with which the run goes on otherwise becomes one more."""
        values = {name: str(value)[:6000] for name, value in start.settings.items()}
        changed = [name for name, value in values.items() if known.get(name, value) != value]
        values |= {f"{name} from step {start.step}": values[name] for name in changed}
        parameter = self.module.entities.Param
        for part in _parts([parameter(*item) for item in values.items() if item[0] not in known], 100):
            self.client.log_batch(self.run_id, params=part)

    @_mlflow_environment()
    def log(self, row: Numbers, step: int) -> None:
        now, metric = round(1000 * time.time()), self.module.entities.Metric
        for part in _parts([metric(_metric_name(name), value, now, step) for name, value in row.items()], 1000):
            self.client.log_batch(self.run_id, metrics=part)
        self.client.set_tag(self.run_id, self.STEP, step)

    @_mlflow_environment()
    def picture(self, name: str, path: Path, _: int) -> None:
        self.client.log_artifact(self.run_id, str(path), name)

    @_mlflow_environment()
    def close(self, failed: bool) -> None:
        self.client.set_terminated(self.run_id, "FAILED" if failed else "FINISHED")


def _parts(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def _metric_name(name: str) -> str:
    """A name that MLflow takes: in `val/AP/<class>`, what it does not allow in the name of the class is replaced."""
    *groups, last = name.split("/", 2)
    last = re.sub(r"[^\w .-]", "_", last)[:80]
    return "/".join([*groups, last if last.strip(".") else "_"])


SERVICES: dict[str, tuple[str, Callable[[Any, Start], Logger]]] = {
    "tensorboard": ("torch.utils.tensorboard", TensorBoard),
    "wandb": ("wandb", Wandb),
    "mlflow": ("mlflow", Mlflow),
}
"""By setting: the package, which is loaded where it is asked for only, and what is made of it."""
