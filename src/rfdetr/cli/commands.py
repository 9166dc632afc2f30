"""What each command does: the facade's verbs, with files around them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from json import dumps
from pathlib import Path
from typing import Any

from rfdetr.api import RFDETR, SIZES
from rfdetr.cli.settings import changed
from rfdetr.config.base import Config
from rfdetr.config.commands import DemoConfig, OptimizeConfig, PredictConfig
from rfdetr.config.datasets import CheckConfig, ConvertConfig
from rfdetr.config.model import ModelSettings
from rfdetr.config.presets import PRESETS
from rfdetr.config.reference import settings_list, settings_page
from rfdetr.config.runs import EvaluateConfig, ModelChoice, TrainConfig, train_problems
from rfdetr.console import say, show
from rfdetr.files import write_yaml


@dataclass(frozen=True)
class Command:
    """A verb of the command line; its flags are the fields of its configs."""

    summary: str
    configs: tuple[type[Config], ...]
    run: Callable[..., int | None]
    """Gives the exit code; None is 0."""
    switches: Mapping[str, str] = field(default_factory=dict)
    """Name and help of further switches."""
    further: Callable[[Mapping[str, Any]], list[str]] = lambda _valid: []
    """The problems that valid settings of several configs have with each other."""


def size_problems(settings: Mapping[str, Any]) -> list[str]:
    """What a size says about valid settings before its weights are there; a checkpoint says it when it is opened."""
    size = PRESETS.get(settings.get("model", ""))
    return train_problems(size, settings) if size else []


def open_model(choice: ModelChoice, settings: ModelSettings) -> RFDETR:
    if choice.is_file:
        return RFDETR.from_checkpoint(choice.model, **settings.given())
    return SIZES[choice.model](**settings.given())


def train(choice: ModelChoice, settings: ModelSettings, config: TrainConfig, dry_run: bool) -> None:
    from rfdetr.data.layout import find_split
    from rfdetr.distributed import world_of_environment
    from rfdetr.training.placement import check_machine

    say(f"train: {changed([choice, settings, config])}")
    # What is not here is said before weights are fetched.
    find_split(config.dataset_dir, "train")
    check_machine(config.replace(device=config.device), settings, world_of_environment())
    # `--device` says where to train, "cuda" being what there is, and not where the model is made.
    model, config = open_model(choice, settings.replace(device="cpu")), config.replace(device=config.device)
    if dry_run:
        say(model.rehearse(config).report())
        return
    result = model.train(config)
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


def check(config: CheckConfig, json: bool) -> int:
    from rfdetr.cli.check import run_check

    return run_check(config, json)


def convert(config: ConvertConfig) -> None:
    from rfdetr.data.writing.convert import convert as write

    write(config)


def settings(json: bool) -> None:
    """Print the settings of all commands and verbs, for people or for programs."""
    if json:
        parts = COMMANDS["train"].configs
        rows = {row["name"]: row for part in parts for row in settings_list(part)}
        show(dumps(list(rows.values()), indent=2, default=str) + "\n")
    else:
        configs = [config for command in COMMANDS.values() for config in command.configs]
        show(settings_page(list(dict.fromkeys([*configs, OptimizeConfig]))))


TRAIN = (ModelChoice, ModelSettings, TrainConfig)
EVALUATE = (ModelChoice, ModelSettings, EvaluateConfig)
PREDICT = (ModelChoice, ModelSettings, PredictConfig)
DRY_RUN = {"dry_run": "report steps, files, memory and time from a few measured steps, and stop"}
COMMANDS = {
    "train": Command("train on a dataset", TRAIN, train, DRY_RUN, size_problems),
    "evaluate": Command("evaluate on a split of a dataset", EVALUATE, evaluate, further=size_problems),
    "predict": Command("find objects in images", PREDICT, predict, further=size_problems),
    "check": Command(
        "report on a dataset before training", (CheckConfig,), check, {"json": "print JSON instead of text"}
    ),
    "convert": Command("write a dataset as COCO, YOLO or tar shards", (ConvertConfig,), convert),
    "demo": Command("draw a dataset, train on it from scratch, show the result", (DemoConfig,), demo),
    "settings": Command("print the table of all settings", (), settings, {"json": "of training, as JSON"}),
}
