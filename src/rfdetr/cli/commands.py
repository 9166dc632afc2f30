"""What each command does: the facade's verbs, with files around them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from json import dumps
from pathlib import Path

from rfdetr.api import RFDETR, SIZES
from rfdetr.cli.settings import changed
from rfdetr.config.base import Config
from rfdetr.config.model import ModelSettings
from rfdetr.config.presets import preset
from rfdetr.config.reference import settings_list, settings_table
from rfdetr.config.runs import (
    DemoConfig,
    EvaluateConfig,
    ModelChoice,
    PredictConfig,
    TrainConfig,
)
from rfdetr.console import say
from rfdetr.files import write_yaml


@dataclass(frozen=True)
class Command:
    """A verb of the command line; its flags are the fields of its configs."""

    summary: str
    configs: tuple[type[Config], ...]
    run: Callable[..., None]
    switches: Mapping[str, str] = field(default_factory=dict)
    """Name and help of further switches."""


def is_file(choice: ModelChoice) -> bool:
    """Whether `--model` names a checkpoint file rather than a size.

    Raises:
        ConfigError: neither.
    """
    if Path(choice.model).suffix in (".pth", ".pt", ".ckpt", ".safetensors"):
        return True
    preset(choice.model)
    return False


def open_model(choice: ModelChoice, settings: ModelSettings) -> RFDETR:
    if is_file(choice):
        return RFDETR.from_checkpoint(choice.model, **settings.given())
    return SIZES[choice.model](**settings.given())


def train(choice: ModelChoice, settings: ModelSettings, config: TrainConfig) -> None:
    from rfdetr.data.layout import find_split

    say(f"train: {changed([choice, settings, config])}")
    is_file(choice)
    find_split(config.dataset_dir, "train")  # a wrong name or path is said before weights are fetched
    result = open_model(choice, settings).train(config)
    kind = "segm_" if "segm_mAP_50_95" in result.metrics else ""
    scores = ", ".join(f"{name} {result.metrics[name] or 0:.3f}" for name in (f"{kind}mAP_50_95", f"{kind}mAP_50"))
    say(f"best weights: {result.best_checkpoint} ({scores} on the validation split)")


def evaluate(choice: ModelChoice, settings: ModelSettings, config: EvaluateConfig) -> None:
    say(f"evaluate: {changed([choice, settings, config])}")
    say(open_model(choice, settings).evaluate(config).table())
    if config.output_dir is not None:
        save_settings(Path(config.output_dir) / "evaluate.yaml", choice, settings, config)


def save_settings(path: Path, *configs: Config) -> None:
    """All settings of a command beside its results, so that `--config` can repeat it."""
    write_yaml(path, {name: value for config in configs for name, value in config.plain().items()})


def predict(choice: ModelChoice, settings: ModelSettings, config: PredictConfig) -> None:
    from rfdetr.cli.predict import predict_files

    say(f"predict: {changed([choice, settings, config])}")
    predict_files(open_model(choice, settings), config)
    save_settings(Path(config.output_dir) / "predict.yaml", choice, settings, config)


def demo(config: DemoConfig) -> None:
    from rfdetr.cli.demo import run_demo

    run_demo(config)


def settings(json: bool) -> None:
    """Print the settings of all commands, for people or for programs."""
    if json:
        rows = [row for part in COMMANDS["train"].configs for row in settings_list(part)]
        print(dumps(rows, indent=2, default=str))
        return
    configs = [config for command in COMMANDS.values() for config in command.configs]
    for config in dict.fromkeys(configs):
        print(f"## {config.__name__}\n\n{config.__doc__}\n\n{settings_table(config)}\n")


COMMANDS = {
    "train": Command("train on a dataset", (ModelChoice, ModelSettings, TrainConfig), train),
    "evaluate": Command("evaluate on a split of a dataset", (ModelChoice, ModelSettings, EvaluateConfig), evaluate),
    "predict": Command("find objects in images", (ModelChoice, ModelSettings, PredictConfig), predict),
    "demo": Command("draw a dataset, train on it from scratch, show the result", (DemoConfig,), demo),
    "settings": Command("print the table of all settings", (), settings, {"json": "of training, as JSON"}),
}
