"""TensorBoard and Weights & Biases, where asked for and installed."""

from typing import Any

from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger

from rfdetr.config.runs import TrainConfig
from rfdetr.console import warn
from rfdetr.training.run_dir import RunDir


def build_loggers(config: TrainConfig, run_dir: RunDir, settings: dict[str, Any]) -> list[Logger]:
    """The loggers of a run, given its settings as hyper-parameters. One not installed is left out, aloud."""
    loggers: list[Logger] = []
    folder, run = run_dir.path, config.run
    if config.tensorboard:
        loggers += _build("tensorboard", lambda: TensorBoardLogger(folder, name="tensorboard", version=run or ""))
    if config.wandb:
        loggers += _build("wandb", lambda: WandbLogger(name=run, project=config.project, save_dir=folder))
    for logger in loggers:
        logger.log_hyperparams({name: str(value) for name, value in settings.items()})
    return loggers


def _build(name: str, make: Any) -> list[Logger]:
    try:
        return [make()]
    except ModuleNotFoundError:
        warn(f"{name}=True, but {name} is not installed; training goes on without it (pip install 'rfdetr[loggers]')")
        return []
