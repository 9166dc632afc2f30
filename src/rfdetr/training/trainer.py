"""The Lightning Trainer of a run. It runs the loop; what happens in it is ours."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import lightning.pytorch as lightning
import torch

from rfdetr.config.runs import TrainConfig
from rfdetr.data.batches import EpochBatches
from rfdetr.devices import autocast_dtype
from rfdetr.errors import ConfigError
from rfdetr.training.module import TrainingModule

_PRECISION = {None: "32-true", torch.bfloat16: "bf16-mixed", torch.float16: "16-mixed"}


def build_trainer(
    config: TrainConfig, device: torch.device, callbacks: list[lightning.Callback], epochs: int
) -> lightning.Trainer:
    """A trainer for the given number of further epochs.

    Raises:
        ConfigError: a number format the device cannot train in.
    """
    dtype = autocast_dtype(config.precision, device)
    if dtype is torch.float16 and device.type == "cpu":
        raise ConfigError("precision: 'fp16' needs a GPU; on the CPU use 'bf16' or '32'")
    options: dict[str, Any] = {"accelerator": config.accelerator, "devices": config.devices}
    if config.accelerator == "auto":
        options["accelerator"] = "gpu" if device.type == "cuda" else device.type
        if config.devices == 1 and device.type == "cuda":
            options["devices"] = [device.index or 0]
    with quiet():
        return lightning.Trainer(
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


class Position(lightning.Callback):
    """Tells the batch sampler which process it serves, and at the end of an epoch which one comes next."""

    def __init__(self, batches: EpochBatches) -> None:
        self.batches = batches

    def on_fit_start(self, trainer: lightning.Trainer, _: lightning.LightningModule) -> None:
        self.batches.rank = trainer.global_rank

    def on_train_epoch_end(self, _: lightning.Trainer, module: lightning.LightningModule) -> None:
        if isinstance(module, TrainingModule):
            self.batches.epoch = module.progress.epoch
            self.batches.start_step = module.progress.step_in_epoch


@contextmanager
def quiet() -> Iterator[None]:
    """Without Lightning's messages about hardware and about settings that are not its user's to change."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
