from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
from pydantic import Field, PositiveInt

from rfdetr.config.base import Config, report, suggestion
from rfdetr.config.runs import TrainConfig
from rfdetr.errors import ConfigError


class Recipe(Config):
    """A config to test with."""

    name: str
    """What it is called."""
    epochs: PositiveInt = 3
    """Passes over the data."""
    rate: float = Field(default=0.5, gt=0, le=1)
    """Speed."""
    kind: Literal["step", "cosine"] = "step"
    """Shape."""
    folder: str | Path = "output"
    """Where."""
    devices: int | str = Field(default=1, union_mode="left_to_right")
    """How many."""
    images: PositiveInt | Literal["all"] = "all"
    """How many."""
    low: int = 0
    """Not above epochs."""

    def contradictions(self) -> Iterator[tuple[tuple[str, ...], str]]:
        if self.low > self.epochs:
            yield ("low", "epochs"), f"low={self.low} is above epochs={self.epochs}"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        pytest.param({"epoch": 1}, "epoch: no such setting. Did you mean 'epochs'?", id="misspelt"),
        pytest.param({"zzz": 1}, "zzz: no such setting.", id="nothing like it"),
        pytest.param(
            {"kind": "linear"}, "kind: input should be 'step' or 'cosine', got 'linear'", id="not among the choices"
        ),
        pytest.param({"epochs": 0}, "epochs: input should be greater than 0, got 0", id="out of range"),
        pytest.param({"rate": 2}, "rate: input should be less than or equal to 1, got 2", id="above the range"),
        pytest.param({"rate": float("nan")}, "rate: input should be a finite number, got nan", id="not a number"),
        pytest.param({"rate": float("inf")}, "rate: input should be a finite number, got inf", id="infinite"),
        pytest.param(
            {"devices": [1]}, "devices: input should be a valid integer, got [1]", id="fits no type of a union"
        ),
        pytest.param(
            {"images": "many"},
            "images: input should be a valid integer, unable to parse string as an integer, or 'all', got 'many'",
            id="neither a number nor the word",
        ),
        pytest.param({"rate": True}, "rate: is not a switch, got True", id="a switch for a number"),
        pytest.param({"low": 2, "epochs": 1}, "low=2 is above epochs=1", id="a contradiction"),
        pytest.param(
            {"epochs": 1.5},
            "epochs: input should be a valid integer, got a number with a fractional part, got 1.5",
            id="a fraction",
        ),
    ],
)
def test_one_problem_is_one_line(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Recipe.from_dict({"name": "a", **settings})
    assert str(caught.value) == f"Recipe: {message}"


def test_a_missing_setting_is_named_with_its_meaning() -> None:
    with pytest.raises(ConfigError) as caught:
        Recipe.from_dict({})
    assert str(caught.value) == "Recipe: name: required. What it is called."


def test_all_problems_are_reported_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        TrainConfig(dataset_dir="d", epochs=0, lr=-1, epoch=3, early_stopping_patience=5)  # type: ignore[call-arg]
    assert str(caught.value).splitlines() == [
        "TrainConfig has 4 problems:",
        "  epochs: input should be greater than 0, got 0",
        "  lr: input should be greater than 0, got -1",
        "  epoch: no such setting. Did you mean 'epochs'?",
        "  early_stopping_patience=5 has no effect with early_stopping=False; leave it out or change early_stopping",
    ]


def test_contradictions_are_found_beside_a_missing_setting_and_in_text() -> None:
    assert Recipe.check({"low": "4"})[1] == ["name: required. What it is called.", "low=4 is above epochs=3"]


def test_a_wrong_value_contradicts_nothing() -> None:
    valid, problems = Recipe.check({"name": "a", "low": 9, "epochs": -1})
    assert problems == ["epochs: input should be greater than 0, got -1"]
    assert valid == {key: value for key, value in Recipe(name="a").plain().items() if key != "epochs"} | {"low": 9}


def test_text_is_parsed_as_the_command_line_and_yaml_give_it() -> None:
    recipe = Recipe.from_dict({"name": "a", "epochs": "7", "rate": "1e-3", "devices": "2"})
    assert (recipe.epochs, recipe.rate, recipe.devices) == (7, 1e-3, 2)


def test_a_config_cannot_be_changed() -> None:
    recipe = Recipe(name="a")
    with pytest.raises(ValueError, match="frozen"):
        recipe.epochs = 4


def test_replace_gives_a_checked_copy() -> None:
    recipe = Recipe(name="a", rate=0.1)
    assert recipe.replace(epochs=9) == Recipe(name="a", rate=0.1, epochs=9)
    assert recipe.epochs == 3
    with pytest.raises(ConfigError, match="epochs: input should be greater than 0"):
        recipe.replace(epochs=-1)


def test_what_was_left_at_its_default_is_known_after_a_replacement_too() -> None:
    recipe = Recipe(name="a").replace(epochs=9)
    assert recipe.given() == {"name": "a", "epochs": 9}


def test_plain_values_can_be_read_back() -> None:
    recipe = Recipe(name="a", folder=Path("x") / "y")
    assert recipe.plain() == {
        "name": "a",
        "epochs": 3,
        "rate": 0.5,
        "kind": "step",
        "folder": str(Path("x") / "y"),
        "devices": 1,
        "images": "all",
        "low": 0,
    }
    assert Recipe.from_dict(recipe.plain()).plain() == recipe.plain()


def test_report() -> None:
    assert report("A", ["one"]) == "A: one"
    assert report("A", ["one", "two"]) == "A has 2 problems:\n  one\n  two"


def test_suggestion() -> None:
    assert suggestion("batchsize", ["batch_size", "epochs"]) == " Did you mean 'batch_size'?"
    assert suggestion("EPOCHS", ["batch_size", "epochs"]) == " Did you mean 'epochs'?"
    assert suggestion("q", ["batch_size", "epochs"]) == ""
