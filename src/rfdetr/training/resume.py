"""Going on from the checkpoint of an earlier run."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rfdetr.classes import ClassTable
from rfdetr.config.base import report
from rfdetr.config.model import ModelConfig
from rfdetr.config.runs import TrainConfig
from rfdetr.console import say, warn
from rfdetr.errors import ConfigError, WeightsError
from rfdetr.training.checkpoints import Checkpoints
from rfdetr.training.epoch import REGULAR
from rfdetr.training.run_dir import RunDir
from rfdetr.training.state import Best, Progress
from rfdetr.weights.checkpoint import Checkpoint, load_checkpoint

# What a checkpoint that can be resumed from holds beside the weights.
_STATE = {"progress", "optimizer", "scaler", "ema_model", "losses"}
# These say how a run is started and where it lies, not what it does.
_NOT_COMPARED = {"resume", "dataset_dir", "output_dir", "seed", "resolution", "class_names", "best_metric"}


def find_run(config: TrainConfig, run_dir: RunDir) -> tuple[Path, Checkpoint] | None:
    """The checkpoint that `resume` asks for; with "auto" the newest in the output folder that is whole, if any.

    Raises:
        WeightsError: it cannot be read, or holds weights alone.
    """
    if config.resume is None:
        return None
    if config.resume != "auto":
        path = Path(config.resume)
        return path, _load(path)
    for path in run_dir.states():
        try:
            return path, _load(path)
        except WeightsError as error:
            warn(f"resume: {error}; looking for an older one")
    say(f"resume: no checkpoint in {run_dir.path}; a fresh start")
    return None


def _load(path: Path) -> Checkpoint:
    checkpoint = load_checkpoint(path)
    if checkpoint.run is None or not set(checkpoint.run) >= _STATE:
        raise WeightsError(f"{path}: holds weights alone, no state of a run. Resume from checkpoint.pth of the run")
    try:
        Progress.from_dict(checkpoint.run["progress"])
    except (AttributeError, LookupError, TypeError):
        raise WeightsError(
            f"{path}: holds the state of a run of another version of this library. "
            "Start a new run from its weights (pretrain_weights)"
        ) from None
    return checkpoint


def check_resumable(
    path: Path, checkpoint: Checkpoint, config: TrainConfig, model: ModelConfig, classes: ClassTable, now: Progress
) -> None:
    """Whether the run can go on with these settings, which would start it as `now` says.

    Raises:
        ConfigError: names everything that it cannot go on with.
    """
    then = Progress.from_dict((checkpoint.run or {})["progress"])
    problems = [*_other_model(checkpoint, model, classes), *_other_run(checkpoint.settings, then, config, now)]
    if problems:
        raise ConfigError(report(f"resume from {path}", problems))


def _other_model(checkpoint: Checkpoint, model: ModelConfig, classes: ClassTable) -> Iterator[str]:
    if checkpoint.classes != classes:
        were = ", ".join(checkpoint.classes.names) if checkpoint.classes else "unnamed"
        yield f"classes: the run has {were}; the dataset {', '.join(classes.names)}"
    was, is_now = (config.plain() if config else {} for config in (checkpoint.config, model))
    for name in [name for name in is_now if was.get(name) != is_now[name]]:
        yield f"{name}: the run's model has {was.get(name)}, this one {is_now[name]}"


def _other_run(settings: Mapping[str, Any], then: Progress, config: TrainConfig, now: Progress) -> Iterator[str]:
    if then.epoch >= config.epochs and config.resume != "auto":
        yield f"epochs: {then.epoch} are done already; ask for more than that"
    if config.seed not in (None, then.seed):
        yield f"seed: the run has {then.seed}; leave seed out"
    if then.num_images != now.num_images:
        yield (
            f"dataset_dir: the run has {then.num_images} training images, this dataset {now.num_images}; "
            "to train on other images, start a new run from the weights (pretrain_weights)"
        )
    if then.images_per_step != now.images_per_step:
        yield (
            f"batch_size x grad_accum_steps x devices: the run has {then.images_per_step} images per step, "
            f"these settings {now.images_per_step}; the product has to stay the same"
        )
    metric = settings.get("best_metric", config.best_metric)
    if metric != config.best_metric:
        yield f"best_metric: the run has chosen its best by {metric}; leave it"


def say_changes(path: Path, settings: Mapping[str, Any], config: TrainConfig, then: Progress, steps: int) -> None:
    """Say where the run goes on, and which of its settings are other than before."""
    where = f"epoch {then.epoch + 1}"
    if then.step_in_epoch:
        is_trained = then.step_in_epoch == steps
        where = f"the evaluation of {where}" if is_trained else f"{where}, step {then.step_in_epoch + 1} of {steps}"
    say(f"resume: {path}, from {where}")
    now = config.plain()
    names = [name for name in now if name not in _NOT_COMPARED and name in settings and settings[name] != now[name]]
    if names:
        say("resume: changed: " + ", ".join(f"{name} {settings[name]} -> {now[name]}" for name in names))
    if "epochs" in names and config.lr_scheduler == "cosine":
        say(f"resume: the learning rate goes on along the cosine over {config.epochs} epochs")


def restore_best(checkpoints: Checkpoints, progress: Progress) -> None:
    """Make the files of the best weights those that the state knows of.

    They differ if the run was killed between two files, or if it goes on from an older state than its last.
    """
    for kind, best in progress.best.items():
        path = checkpoints.run_dir.best(kind)
        if best.step is None or _step_of(path) == best.step:
            continue
        if best.step == progress.step and not progress.step_in_epoch and (kind == REGULAR or checkpoints.step.ema):
            checkpoints.save_best(kind)
        else:
            warn(f"resume: {path} is not the best that this state knows of; the search for it starts anew")
            progress.best[kind] = Best()


def _step_of(path: Path) -> int | None:
    try:
        return (load_checkpoint(path).run or {}).get("step")
    except WeightsError:
        return None
