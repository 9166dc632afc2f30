"""One run, from config to result, top to bottom."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from rfdetr.classes import ClassTable
from rfdetr.config.base import report
from rfdetr.config.model import ModelConfig, ModelSettings
from rfdetr.config.runs import TrainConfig
from rfdetr.console import say, warn
from rfdetr.data.annotations import Annotations
from rfdetr.data.batches import EpochBatches, multi_scale_sizes, step_scale
from rfdetr.data.loading import training_loader
from rfdetr.errors import ConfigError, WeightsError
from rfdetr.files import write_json
from rfdetr.models.detector import Detector
from rfdetr.training.callbacks.checkpoints import Checkpoints
from rfdetr.training.callbacks.metrics import Metrics
from rfdetr.training.callbacks.progress import ProgressDisplay
from rfdetr.training.callbacks.selection import Selection
from rfdetr.training.callbacks.validation import Validation
from rfdetr.training.ema import Ema
from rfdetr.training.epoch import REGULAR, EpochReport
from rfdetr.training.loggers import build_loggers
from rfdetr.training.module import TrainingModule
from rfdetr.training.optimizer import build_optimizer, check_same_groups
from rfdetr.training.run_dir import RunDir
from rfdetr.training.state import BestScores, Progress
from rfdetr.training.trainer import Position, build_trainer, fit
from rfdetr.weights.checkpoint import Checkpoint, load_checkpoint
from rfdetr.weights.names import from_published


@dataclass(frozen=True)
class TrainingResult:
    """What a run leaves behind."""

    output_dir: Path
    best_checkpoint: Path
    """The better of regular and averaged weights on the validation split."""
    metrics: dict[str, Any]
    """Validation metrics of these weights; with `run_test`, those of the test split under `test`."""
    history: list[dict[str, Any]]
    """The rows of metrics.csv."""


def train(
    detector: Detector,
    train_split: Annotations,
    valid_split: Annotations,
    config: TrainConfig,
    model_settings: ModelSettings,
    device: torch.device,
) -> TrainingResult:
    """Train the detector in place (its weights end as the last step left them) and leave the best in a file.

    The model's settings are only written down, beside those of the run.
    """
    run_dir, classes = RunDir(Path(config.output_dir)), train_split.classes
    earlier = _load_run(Path(config.resume), detector, classes) if config.resume else None
    progress = Progress.from_dict((earlier.run or {})["progress"]) if earlier else Progress(seed=_seed(config))
    batches = _batches(len(train_split), detector.config, config, progress)
    validation = Validation(valid_split, config, batches)
    callbacks = [
        Position(batches, progress),
        validation,
        Selection(validation, progress, config),
        Metrics(validation, progress, run_dir, config),
        Checkpoints(validation, run_dir, classes, config),
        ProgressDisplay(validation, config, batches),
    ]
    trainer = build_trainer(config, device, callbacks, epochs=config.epochs - progress.epoch)
    batches.world_size = trainer.world_size
    if earlier:
        _check_resumable(config, progress, batches.steps_per_epoch, run_dir)
        detector.load_state_dict(earlier.weights)
    ema = Ema(detector, config.ema_decay, config.ema_tau) if config.use_ema else None
    make_loader = partial(_loader, train_split, batches, config, device)
    module = TrainingModule(detector, ema, config, progress, batches.steps_per_epoch, make_loader)
    if earlier:
        _restore(module, earlier.run or {})
    settings = _effective_settings(config, model_settings, detector.config, progress.seed)
    if trainer.is_global_zero:
        if run_dir.last.exists() and not earlier:
            warn(f"{run_dir.path} holds an earlier run; files of the same names will be replaced")
        run_dir.write_settings(settings)
        say(_opening(detector, train_split, valid_split, batches, progress))
    trainer.loggers = build_loggers(config, run_dir, settings)
    vit = detector.train().backbone.vit
    vit.set_drop_path(config.drop_path)
    if config.gradient_checkpointing is not None:
        vit.gradient_checkpointing = config.gradient_checkpointing
    try:
        fit(trainer, module)
    finally:
        vit.set_drop_path(0.0)
        detector.eval()
    metrics = _best_metrics(progress.best, validation.report, ema is not None)
    if trainer.is_global_zero:
        write_json(run_dir.results, metrics)
    return TrainingResult(run_dir.path, run_dir.best_total, metrics, progress.history)


def _effective_settings(
    config: TrainConfig, model_settings: ModelSettings, model: ModelConfig, seed: int
) -> dict[str, Any]:
    """All settings of the run, as a file that `rfdetr train --config` takes; None, which is "not set", is left out."""
    shape = {name: value for name, value in model.plain().items() if name in ModelSettings.model_fields}
    run = {name: value for name, value in config.plain().items() if value is not None}
    settings = {"model": model.size, **model_settings.plain(), **run, **shape, "seed": seed, "resume": None}
    return {name: value for name, value in settings.items() if value is not None or name == "pretrain_weights"}


def _seed(config: TrainConfig) -> int:
    return config.seed if config.seed is not None else secrets.randbits(31)


def _load_run(path: Path, detector: Detector, classes: ClassTable) -> Checkpoint:
    """The checkpoint of an earlier run of the same model on the same classes.

    Raises:
        WeightsError: another model or other classes, or a file that holds weights alone.
    """
    checkpoint = load_checkpoint(path)
    if checkpoint.run is None or not {"progress", "optimizer", "ema_model"} <= set(checkpoint.run):
        raise WeightsError(f"{path}: holds weights alone, no state of a run. Resume from checkpoint.pth of the run")
    if checkpoint.classes != classes:
        raise WeightsError(f"{path}: its classes are not those of the dataset")
    if checkpoint.config != detector.config:
        raise WeightsError(f"{path}: its model differs from this one; open it with RFDETR.from_checkpoint")
    return checkpoint


def _check_resumable(config: TrainConfig, progress: Progress, steps_per_epoch: int, run_dir: RunDir) -> None:
    """Raises:
    ConfigError: settings that the run cannot go on with.
    """
    problems = []
    if progress.epoch >= config.epochs:
        problems.append(f"epochs: {progress.epoch} are done already; ask for more than that")
    if config.seed not in (None, progress.seed):
        problems.append(f"seed: the run has {progress.seed}; leave seed out")
    if progress.step != progress.epoch * steps_per_epoch + progress.step_in_epoch:
        was = progress.step // max(progress.epoch, 1)
        problems.append(f"batch_size, grad_accum_steps: the run had {was} steps per epoch, not {steps_per_epoch}")
    best = {run_dir.best_regular: progress.best.regular_metrics, run_dir.best_ema: progress.best.ema_metrics}
    problems += [f"output_dir: {path} is missing, the best so far" for path in best if best[path] and not path.exists()]
    if problems:
        raise ConfigError(report(f"resume from {config.resume}", problems))


def _restore(module: TrainingModule, run: Mapping[str, Any]) -> None:
    check_same_groups(build_optimizer(module.detector, module.detector.config, module.config), run["optimizer"])
    module.optimizer_state = run["optimizer"]
    if module.ema and run["ema_model"]:
        module.ema.detector.load_state_dict(from_published(run["ema_model"]))


def _batches(num_images: int, model: ModelConfig, config: TrainConfig, progress: Progress) -> EpochBatches:
    """The steps of the run, for one process; the trainer knows how many there are."""
    sizes = [model.resolution]
    if config.multi_scale:
        sizes = multi_scale_sizes(model.resolution, model.block_size, config.expanded_scales)
    return EpochBatches(
        num_images=num_images,
        batch_size=config.batch_size,
        grad_accum_steps=config.grad_accum_steps,
        seed=progress.seed,
        rank=0,
        world_size=1,
        scale_of_step=lambda step: step_scale(sizes, progress.seed, step),
        epoch=progress.epoch,
        start_step=progress.step_in_epoch,
    )


def _loader(
    train_split: Annotations, batches: EpochBatches, config: TrainConfig, device: torch.device
) -> DataLoader[Any]:
    return training_loader(
        train_split,
        batches,
        augment=config.augment,
        num_workers=config.num_workers,
        pin_memory=device.type == "cuda" if config.pin_memory is None else config.pin_memory,
        persistent_workers=config.persistent_workers,
        prefetch_factor=config.prefetch_factor,
    )


def _opening(
    detector: Detector, train_split: Annotations, valid_split: Annotations, batches: EpochBatches, progress: Progress
) -> str:
    """The first line of a run."""
    model = detector.config
    parts = [
        f"RF-DETR {model.size}",
        f"{model.resolution} x {model.resolution} pixels",
        f"{len(train_split.classes)} classes",
        f"{len(train_split)} training and {len(valid_split)} validation images",
        f"{batches.steps_per_epoch} steps of {batches.images_per_step} images per epoch",
        f"seed {progress.seed}",
    ]
    return ", ".join(parts)


def _best_metrics(best: BestScores, last: EpochReport | None, has_ema: bool) -> dict[str, Any]:
    """Of the weights in `checkpoint_best_total.pth`: where none ever scored, the last regular ones."""
    found = best.ema_metrics if has_ema and best.ema > best.regular else best.regular_metrics
    if found is None and last is not None:
        found = last.results[REGULAR].to_json()
    return found or {}
