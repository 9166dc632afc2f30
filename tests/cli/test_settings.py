import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from rfdetr.cli.settings import add_flags, changed, read_configs
from rfdetr.config.commands import PredictConfig
from rfdetr.config.model import ModelSettings
from rfdetr.config.runs import ModelChoice, TrainConfig
from rfdetr.errors import ConfigError

CONFIGS = (ModelChoice, ModelSettings, TrainConfig)


def parse(*arguments: str) -> dict[str, Any]:
    parser = argparse.ArgumentParser()
    add_flags(parser, CONFIGS)
    return vars(parser.parse_args(arguments))


def read(tmp_path: Path, yaml: str, *arguments: str) -> tuple[ModelChoice, ModelSettings, TrainConfig]:
    """The configs from a settings file and flags."""
    file = tmp_path / "settings.yaml"
    file.write_text(yaml)
    choice, settings, config = read_configs(parse("--config", str(file), *arguments), CONFIGS)
    assert isinstance(choice, ModelChoice)
    assert isinstance(settings, ModelSettings)
    assert isinstance(config, TrainConfig)
    return choice, settings, config


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        pytest.param(["data"], {"dataset_dir": "data"}, id="the required one needs no flag"),
        pytest.param(["--dataset-dir", "data"], {"dataset_dir": "data"}, id="but has one"),
        pytest.param(["--class-names", "cat", "dog"], {"class_names": ["cat", "dog"]}, id="several values"),
        pytest.param(["--epochs", "3", "--epochs", "4"], {"epochs": "4"}, id="the last wins"),
        pytest.param(["--lr-vit-layer-decay", "1"], {"lr_vit_layer_decay": "1"}, id="values stay text"),
        pytest.param(["--early-stopping"], {"early_stopping": True}, id="switched on"),
        pytest.param(["--no-use-ema"], {"use_ema": False}, id="switched off"),
        pytest.param(["--no-pin-memory"], {"pin_memory": False}, id="switch that may be none"),
        pytest.param(["--progress-bar", "rich"], {"progress_bar": "rich"}, id="switch with styles"),
    ],
)
def test_flags_are_settings(arguments: list[str], expected: dict[str, Any]) -> None:
    assert parse(*arguments) == {"config": None, **expected}


@pytest.mark.parametrize("arguments", [["a", "--dataset-dir", "b"], ["--dataset-dir", "a", "b"]])
def test_a_value_with_and_without_its_flag(arguments: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"^dataset_dir: given twice, as 'a' and as 'b'$"):
        parse(*arguments)


def test_a_name_of_several_configs_is_a_setting_of_all(tmp_path: Path) -> None:
    _, settings, config = read(tmp_path, "device: cpu\n", "data", "--resolution", "128")
    assert (settings.device, settings.resolution) == (config.device, config.resolution) == ("cpu", 128)


def test_flags_win_over_the_file_and_the_file_over_defaults(tmp_path: Path) -> None:
    yaml = "model: nano\nnum_queries: 100\ndataset_dir: data\nepochs: 7\nlr: 3.0e-4\nuse_ema: false\n"
    choice, settings, config = read(tmp_path, yaml, "--epochs", "9", "--num-classes", "3", "--model", "small")
    assert choice.model == "small"
    assert settings.given() == {"num_queries": 100, "num_classes": 3}
    assert (config.epochs, config.lr, config.use_ema, config.batch_size) == (9, 3e-4, False, 4)


def test_none_is_a_value(tmp_path: Path) -> None:
    _, settings, config = read(tmp_path, "dataset_dir: data\nseed: 5\n", "--pretrain-weights", "none", "--seed", "none")
    assert settings.pretrain_weights is None
    assert config.seed is None


@pytest.mark.parametrize(
    ("yaml", "expected"),
    [
        pytest.param("epoch: 3\n", "epoch: no such setting. Did you mean 'epochs'?", id="unknown"),
        pytest.param(
            "epoch: 3\nnum_select: -1\nlr: fast\n",
            "epoch: no such setting. Did you mean 'epochs'?\n"
            "ModelSettings: num_select: input should be greater than 0, got -1\n"
            "TrainConfig: lr: input should be a valid number, unable to parse string as a number, got 'fast'",
            id="all problems at once",
        ),
    ],
)
def test_mistakes_in_the_file_are_named(yaml: str, expected: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, yaml, "data")
    assert str(caught.value) == expected


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        pytest.param("epochs: [3\nlr: 1\n", r"settings.yaml: not YAML in line \d", id="not YAML"),
        pytest.param("- epochs\n", "settings.yaml: expected lines `setting: value`, got a list", id="a list"),
    ],
)
def test_a_file_that_holds_no_settings_is_named(content: str, expected: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=expected):
        read(tmp_path, content, "data")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"missing.yaml: cannot be read: No such file"):
        read_configs(parse("data", "--config", str(tmp_path / "missing.yaml")), CONFIGS)


def test_further_problems_are_said_with_the_rest() -> None:
    def further(valid: Mapping[str, Any]) -> list[str]:
        return [f"resolution={valid['resolution']}, but seed={valid['seed']}"]

    flags = parse("data", "--resolution", "7", "--seed", "5", "--epochs", "0")
    with pytest.raises(ConfigError) as caught:
        read_configs(flags, CONFIGS, further, ["--lrr: no such flag."])
    assert str(caught.value).splitlines() == [
        "--lrr: no such flag.",
        "TrainConfig: epochs: input should be greater than 0, got '0'",
        "resolution=7, but seed=5",
    ]


def test_what_differs_from_the_defaults_fits_on_a_line() -> None:
    configs = [ModelSettings(num_classes=3), TrainConfig(dataset_dir="data", epochs=100, lr=1e-3)]
    assert changed(configs) == "num_classes=3 dataset_dir=data lr=0.001"
    assert changed([PredictConfig(images=("a", "b", "c", "d"))]) == "images=a,b,c,..."
