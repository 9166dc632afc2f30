"""The Lightning Trainer of a run. It runs the loop; what happens in it is ours."""

import logging
import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import lightning.pytorch as lightning
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.strategies.launchers import _MultiProcessingLauncher

from rfdetr.config.runs import TrainConfig
from rfdetr.data.batches import EpochBatches
from rfdetr.devices import autocast_dtype
from rfdetr.errors import ConfigError
from rfdetr.training.state import Progress

_PRECISION = {None: "32-true", torch.bfloat16: "bf16-mixed", torch.float16: "16-mixed"}


def build_trainer(
    config: TrainConfig, device: torch.device, callbacks: list[lightning.Callback], epochs: int
) -> lightning.Trainer:
    """A trainer for the given number of further epochs.

    Raises:
        ConfigError: a number format the device cannot train in, or devices that Lightning cannot use.
    """
    dtype = autocast_dtype(config.precision, device)
    if dtype is torch.float16 and device.type == "cpu":
        raise ConfigError("precision: 'fp16' needs a GPU; on the CPU use 'bf16' or '32'")
    options: dict[str, Any] = {"accelerator": config.accelerator, "devices": config.devices}
    if config.accelerator == "auto":
        options["accelerator"] = "gpu" if device.type == "cuda" else device.type
        if config.devices == 1 and device.type == "cuda":
            options["devices"] = [device.index or 0]
    try:
        with quiet():
            trainer = lightning.Trainer(
                **options,
                strategy=config.strategy,
                num_nodes=config.num_nodes,
                precision=_PRECISION[dtype],  # type: ignore[arg-type]  # Lightning lists these strings as literals
                max_epochs=epochs,
                callbacks=callbacks,
                logger=False,
                default_root_dir=config.output_dir,
                use_distributed_sampler=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
            )
    except (MisconfigurationException, ValueError, TypeError) as error:
        raise ConfigError(f"accelerator, devices, strategy: {error}") from None
    if isinstance(trainer.strategy.launcher, _MultiProcessingLauncher):
        raise ConfigError(
            "strategy: spawned or forked processes cannot hand back the result; use strategy='ddp' in a script"
        )
    return trainer


def fit(trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
    """Run the loop, quietly. Ctrl-C ends it with a KeyboardInterrupt, where Lightning would end the whole process."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        with quiet():
            trainer.fit(module)
    except SystemExit as error:
        if not isinstance(error.__context__, KeyboardInterrupt):
            raise
        signal.signal(signal.SIGINT, handler)  # Lightning has it ignored from now on
        raise error.__context__ from None


class Position(lightning.Callback):
    """Tells the batch sampler whom it serves, and at the end of an epoch which one comes next."""

    def __init__(self, batches: EpochBatches, progress: Progress) -> None:
        self.batches = batches
        self.progress = progress

    def on_fit_start(self, trainer: lightning.Trainer, _: lightning.LightningModule) -> None:
        self.batches.rank = trainer.global_rank
        # Without a seed in the settings every process has drawn one; that of the first counts.
        self.batches.seed = self.progress.seed = trainer.strategy.broadcast(self.progress.seed)

    def on_train_epoch_end(self, *_: Any) -> None:
        self.batches.epoch = self.progress.epoch
        self.batches.start_step = self.progress.step_in_epoch


@contextmanager
def quiet() -> Iterator[None]:
    """Without Lightning's messages about hardware and about settings that are not its user's to change."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        # The mask head's depthwise kernels have gradients of another memory order; torch copies a few KB.
        warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
