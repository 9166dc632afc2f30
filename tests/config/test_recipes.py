from functools import partial
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from rfdetr.cli.settings import read_configs
from rfdetr.config.recipes import AMOUNTS, RECIPES, Recipe
from rfdetr.config.runs import TrainConfig
from rfdetr.config.values import RecipeName, name_of_callable
from rfdetr.errors import ConfigError


def same(image: Any, boxes: Any, labels: Any, masks: Any) -> Any:
    return image, boxes, labels, masks


class Stormy:
    def __call__(self, *parts: Any) -> Any:
        return parts


def config(**settings: Any) -> TrainConfig:
    return TrainConfig(dataset_dir="data", **settings)


def test_a_recipe_can_be_asked_for_by_each_name() -> None:
    assert list(get_args(RecipeName)) == list(RECIPES)
    assert [config(augment=name).recipe for name in RECIPES] == list(RECIPES.values())
    assert config().recipe == RECIPES["default"]


def test_the_table_of_the_docs_is_that_of_the_recipes() -> None:
    lines = (Path(__file__).parents[2] / "docs/training.md").read_text(encoding="utf-8").splitlines()
    rows = [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    (names,) = (row[1:] for row in rows if row[1:2] == ["none"])
    table = {row[0]: [float(value) for value in row[1:]] for row in rows if row[0] in Recipe.options()}
    assert set(names) == set(RECIPES)
    assert table == {part: [getattr(RECIPES[name], part) for name in names] for part in Recipe.options()}


def test_every_part_of_a_recipe_is_a_setting_that_leaves_it_to_the_recipe_by_default() -> None:
    assert {name: TrainConfig.model_fields[name].default for name in Recipe.options()} == dict.fromkeys(
        Recipe.options()
    )
    assert set(Recipe.options()) > {name for amounts in AMOUNTS.values() for name in amounts} | set(AMOUNTS)


@pytest.mark.parametrize("option", Recipe.options())
def test_an_option_overrides_the_recipe(option: str) -> None:
    changed: dict[str, Any] = {option: 0.25}
    recipe = config(augment="aggressive", **changed).recipe
    assert {**vars(recipe), option: None} == {**vars(RECIPES["aggressive"]), option: None}
    assert getattr(recipe, option) == 0.25
    assert getattr(config(augment="aggressive", **{**changed, option: 0}).recipe, option) == 0


def test_a_pipeline_of_the_user_takes_the_place_of_a_recipe_and_options_come_on_top() -> None:
    assert config(augment=same).recipe == Recipe.nothing_but(same)
    assert config(augment=same, horizontal_flip=0.5).recipe.horizontal_flip == 0.5


@pytest.mark.parametrize(
    ("pipeline", "name"),
    [(same, "same"), (Stormy(), "Stormy"), (partial(same, 1), "same"), (Stormy().__call__, "Stormy.__call__")],
    ids=["function", "object", "partial", "method"],
)
def test_a_pipeline_is_saved_by_its_name(pipeline: Any, name: str) -> None:
    assert name_of_callable(pipeline) == f"{__name__}.{name}"
    assert config(augment=pipeline).plain()["augment"] == f"python:{__name__}.{name}"


def test_saved_settings_say_that_a_pipeline_has_to_be_given_again(tmp_path: Path) -> None:
    (tmp_path / "settings.yaml").write_text(yaml.safe_dump(config(augment=same).plain()))
    with pytest.raises(ConfigError) as error:
        read_configs({"config": tmp_path / "settings.yaml"}, [TrainConfig])
    assert str(error.value) == (
        f"TrainConfig: augment: was {__name__}.same, which a file cannot hold; give it again in Python, "
        "as train(augment=...), or name a recipe"
    )
    other = read_configs({"config": tmp_path / "settings.yaml", "augment": "aerial"}, [TrainConfig])[0]
    assert other.given()["augment"] == "aerial"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"augment": "strong"},
            "augment: input should be 'default', 'none', 'conservative', 'aggressive', 'aerial' or 'industrial', "
            "got 'strong'",
        ),
        (
            {"augment": "agressive"},
            "augment: input should be 'default', 'none', 'conservative', 'aggressive', 'aerial' or 'industrial', "
            "got 'agressive'. Did you mean 'aggressive'?",
        ),
        (
            {"augment": [1]},
            "augment: expected the name of a recipe, a function, transforms of torchvision v2 or a Compose of "
            "Albumentations, got [1]",
        ),
        (
            {"augment": lambda *parts: parts, "devices": 2},
            f"augment: {__name__}.<lambda> cannot be sent to other processes, and devices=2 needs some; "
            "define it at the top level of a module that can be imported",
        ),
        ({"augment": same, "devices": 2}, None),
        ({"degrees": 5, "affine": 0}, "degrees=5.0 has no effect with affine=0.0; leave it out or change affine"),
        (
            {"hue": 0.1, "color_jitter": 0},
            "hue=0.1 has no effect with color_jitter=0.0; leave it out or change color_jitter",
        ),
        ({"mosaic": 1.5}, "mosaic: input should be less than or equal to 1, got 1.5"),
        ({"scale": 1.0}, "scale: input should be less than 1, got 1.0"),
    ],
    ids=[
        "unknown",
        "misspelt",
        "a list",
        "lambda",
        "function",
        "degrees",
        "hue",
        "a chance above 1",
        "scale to nothing",
    ],
)
def test_what_cannot_be_is_refused(settings: dict[str, Any], message: str | None) -> None:
    if message is None:
        config(**settings)
        return
    with pytest.raises(ConfigError) as error:
        config(**settings)
    assert str(error.value) == f"TrainConfig: {message}"


def test_a_chance_of_nothing_is_remarked() -> None:
    assert config(affine=0.5).remarks() == ["affine has no effect: degrees, scale, translate, shear are all 0"]
    assert config(augment="aerial", affine=0.5, color_jitter=0.1).remarks() == []
