"""TensorBoard and Weights & Biases, where asked for and installed."""

from collections.abc import Callable
from typing import Any

from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger

from rfdetr.config.runs import TrainConfig
from rfdetr.console import warn
from rfdetr.errors import ConfigError
from rfdetr.training.run_dir import RunDir


def build_loggers(config: TrainConfig, run_dir: RunDir, settings: dict[str, Any]) -> list[Logger]:
    """The loggers of a run, given its settings as hyper-parameters. One not installed is left out, aloud.

    Raises:
        ConfigError: a logger that is installed cannot start (no API key, no disk space).
    """
    makers: dict[str, Callable[[], Logger]] = {}
    folder, run = run_dir.path, config.run
    if config.tensorboard:
        makers["tensorboard"] = lambda: TensorBoardLogger(folder, name="tensorboard", version=run or "")
    if config.wandb:
        makers["wandb"] = lambda: WandbLogger(name=run, project=config.project, save_dir=folder)
    loggers: list[Logger] = []
    for name, make in makers.items():
        try:
            logger = make()
            logger.log_hyperparams({setting: str(value) for setting, value in settings.items()})
        except ModuleNotFoundError:
            warn(
                f"{name}=True, but {name} is not installed; training goes on without it (pip install 'rfdetr[loggers]')"
            )
        except Exception as error:  # of kinds of its own, some wrapped by Lightning
            raise ConfigError(f"{name}: cannot start: {error.__cause__ or error}") from error
        else:
            loggers.append(logger)
    return loggers
