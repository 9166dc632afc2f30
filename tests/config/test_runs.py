from pathlib import Path

import pytest

from rfdetr.config.runs import PredictConfig, TrainConfig, scratch_recipe
from rfdetr.errors import ConfigError


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        pytest.param(
            {"lr_min_factor": 0.1},
            "lr_min_factor is the floor of lr_scheduler='cosine'; with 'step' it has no effect",
            id="floor without cosine",
        ),
        pytest.param(
            {"lr_scheduler": "cosine", "lr_drop": 10},
            "lr_drop belongs to lr_scheduler='step'; with 'cosine' it has no effect",
            id="drop with cosine",
        ),
        pytest.param(
            {"warmup_epochs": 3, "epochs": 2}, "warmup_epochs=3.0 is longer than epochs=2", id="warm-up beyond the end"
        ),
        pytest.param(
            {"early_stopping_patience": 3},
            "early_stopping_patience has no effect without early_stopping=True",
            id="patience without early stopping",
        ),
        pytest.param(
            {"num_workers": 0, "prefetch_factor": 4},
            "prefetch_factor needs num_workers > 0",
            id="prefetching without workers",
        ),
        pytest.param(
            {"num_workers": 0, "persistent_workers": True},
            "persistent_workers needs num_workers > 0",
            id="persistent workers without workers",
        ),
        pytest.param({"dataset_dir": ""}, "dataset_dir: must not be empty", id="no folder"),
        pytest.param({"drop_path": 1}, "drop_path: input should be less than 1, got 1", id="all blocks dropped"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        TrainConfig.from_dict({"dataset_dir": "data", **settings})
    assert str(caught.value) == f"TrainConfig: {message}"


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({"lr_scheduler": "cosine", "lr_min_factor": 0.1}, id="floor of the cosine"),
        pytest.param({"early_stopping": True, "early_stopping_patience": 3}, id="patience with early stopping"),
        pytest.param({"num_workers": 0, "persistent_workers": False}, id="no workers, none of them persistent"),
        pytest.param({"warmup_epochs": 2, "epochs": 2}, id="warm-up to the end"),
        pytest.param({"dataset_dir": Path("data")}, id="a path"),
        pytest.param({"progress_bar": False}, id="no bar"),
        pytest.param({"progress_bar": "rich"}, id="a bar by name"),
    ],
)
def test_settings_that_go_together(settings: dict[str, object]) -> None:
    assert TrainConfig.from_dict({"dataset_dir": "data", **settings}).given().keys() >= settings.keys()


def test_a_config_can_be_read_back_from_the_settings_it_was_saved_with() -> None:
    config = TrainConfig(dataset_dir="data", lr_scheduler="step", epochs=5)
    assert TrainConfig.from_dict(config.given()) == config


@pytest.mark.parametrize(("given", "devices"), [("2", 2), (2, 2), ("0,1", "0,1"), ("auto", "auto")])
def test_devices_are_a_number_or_a_description(given: str | int, devices: str | int) -> None:
    assert TrainConfig(dataset_dir="data", devices=given).devices == devices


def test_the_recipe_for_random_weights_is_made_of_settings() -> None:
    config = TrainConfig(dataset_dir="data", **scratch_recipe())
    assert (config.lr_vit_layer_decay, config.lr_component_decay) == (1, 1)
    assert config.lr == config.lr_encoder


def test_a_prediction_needs_images() -> None:
    with pytest.raises(ConfigError, match="images: "):
        PredictConfig(images=())
