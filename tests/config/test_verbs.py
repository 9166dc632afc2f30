import inspect

import pytest

from rfdetr.config.runs import EvaluateConfig
from rfdetr.config.verbs import takes_fields, takes_settings
from rfdetr.errors import ConfigError


class Machine:
    """Something with verbs."""

    @takes_fields(EvaluateConfig)
    def __init__(self, config: EvaluateConfig) -> None:
        self.config = config

    @takes_settings(EvaluateConfig)
    def run(self, config: EvaluateConfig) -> EvaluateConfig:
        """Run it."""
        return config

    @takes_settings(EvaluateConfig, lambda self, valid: self.too_large(valid.get("batch_size", 0)))
    def run_small(self, config: EvaluateConfig) -> EvaluateConfig:
        return config

    def too_large(self, batch_size: int) -> list[str]:
        return [f"batch_size={batch_size} is too large"] if batch_size > self.config.batch_size else []


@pytest.fixture
def machine() -> Machine:
    return Machine(dataset_dir="data")


def test_a_config_and_its_settings_do_the_same(machine: Machine) -> None:
    config = EvaluateConfig(dataset_dir="data", batch_size=2)
    assert machine.run(config) is config
    assert machine.run(dataset_dir="data", batch_size=2) == config


def test_a_constructor_takes_keywords(machine: Machine) -> None:
    assert machine.config == EvaluateConfig(dataset_dir="data")


def test_not_both(machine: Machine) -> None:
    with pytest.raises(ConfigError) as caught:
        machine.run(EvaluateConfig(dataset_dir="data"), batch_size=2)  # type: ignore[call-overload]
    assert str(caught.value) == "run: give a config or settings, not both"


def test_a_value_without_a_name(machine: Machine) -> None:
    with pytest.raises(ConfigError) as caught:
        machine.run("data")  # type: ignore[call-overload]
    assert str(caught.value) == "run: give settings by name, or one EvaluateConfig; got 'data'"


def test_a_misspelt_setting_is_explained(machine: Machine) -> None:
    with pytest.raises(ConfigError) as caught:
        machine.run(dataset_dir="data", batchsize=2)  # type: ignore[call-overload]
    assert str(caught.value) == "EvaluateConfig: batchsize: no such setting. Did you mean 'batch_size'?"


def test_what_only_the_object_knows_is_said_with_the_rest(machine: Machine) -> None:
    with pytest.raises(ConfigError) as caught:
        machine.run_small(dataset_dir="data", batch_size=9, num_workers=-1)
    assert str(caught.value).splitlines() == [
        "EvaluateConfig has 2 problems:",
        "  num_workers: input should be greater than or equal to 0, got -1",
        "  batch_size=9 is too large",
    ]
    with pytest.raises(ConfigError, match=r"^EvaluateConfig: batch_size=9 is too large$"):
        machine.run_small(EvaluateConfig(dataset_dir="data", batch_size=9))


def test_help_and_editors_see_the_settings() -> None:
    signature = inspect.signature(Machine.run)
    assert list(signature.parameters) == ["self", *EvaluateConfig.model_fields]
    assert signature.parameters["batch_size"].default == 4
    assert signature.parameters["dataset_dir"].kind is inspect.Parameter.KEYWORD_ONLY
    assert Machine.run.__doc__ == "Run it."
