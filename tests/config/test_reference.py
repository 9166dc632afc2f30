import pytest

from rfdetr.config.base import Config
from rfdetr.config.commands import DemoConfig, OptimizeConfig, PredictConfig
from rfdetr.config.model import ModelConfig, ModelSettings
from rfdetr.config.reference import settings_list, settings_page, settings_table
from rfdetr.config.runs import EvaluateConfig, ModelChoice, TrainConfig

CONFIGS = (
    ModelConfig,
    ModelSettings,
    ModelChoice,
    TrainConfig,
    EvaluateConfig,
    PredictConfig,
    DemoConfig,
    OptimizeConfig,
)


@pytest.mark.parametrize("config", CONFIGS)
def test_every_setting_says_in_one_line_what_it_means(config: type[Config]) -> None:
    for name, field in config.model_fields.items():
        description = field.description or ""
        assert description.endswith((".", ")")), f"{name}: {description!r}"
        assert "\n" not in description, name


@pytest.mark.parametrize("config", CONFIGS)
def test_the_table_has_one_row_per_setting(config: type[Config]) -> None:
    header, rule, *rows = settings_table(config).splitlines()
    assert header == "| setting | type | default | meaning |"
    assert rule == "| --- | --- | --- | --- |"
    assert [row.split("`")[1] for row in rows] == list(config.model_fields)
    assert [row["name"] for row in settings_list(config)] == list(config.model_fields)


@pytest.mark.parametrize(
    "row",
    [
        "| `dataset_dir` | str \\| Path \\| Samples \\| Mapping | Required |",
        "| `epochs` | int | `100` |",
        "| `batch_size` | int \\| str: `auto` | `4` |",
        "| `lr_scheduler` | str: `step`, `cosine` | `step` |",
        "| `resume` | str \\| Path \\| None | `None` |",
        "| `devices` | int \\| str | `1` |",
        "| `use_ema` | bool | `True` |",
        "| `progress_bar` | str \\| bool \\| None: `tqdm`, `rich` | `None` |",
        "| `class_names` | list[str] \\| None | `None` |",
    ],
)
def test_rows(row: str) -> None:
    assert f"\n{row}" in settings_table(TrainConfig)


def test_a_list_of_paths() -> None:
    table = settings_table(PredictConfig)
    assert "| `images` | list[str \\| Path] | Required | Images, or folders of images. |" in table


def test_the_page_has_a_section_per_config() -> None:
    page = settings_page(CONFIGS)
    for config in CONFIGS:
        assert f"\n## {config.__name__}\n\n{config.__doc__}\n\n{settings_table(config)}\n" in page


def test_the_list() -> None:
    by_name = {row["name"]: row for row in settings_list(TrainConfig)}
    assert by_name["epochs"] == {
        "name": "epochs",
        "type": "int",
        "default": 100,
        "description": "Passes over the training split.",
    }
    assert by_name["dataset_dir"]["default"] == "Required"
    assert by_name["seed"]["default"] is None
    assert by_name["lr_scheduler"]["type"] == "str"
    assert by_name["lr_scheduler"]["choices"] == ["step", "cosine"]
