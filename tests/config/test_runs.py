from pathlib import Path
from typing import Any

import pytest
import yaml

from rfdetr.config.commands import PredictConfig
from rfdetr.config.model import ModelConfig, ModelSettings
from rfdetr.config.presets import preset
from rfdetr.config.runs import EvaluateConfig, ModelChoice, TrainConfig, scratch_recipe, train_problems
from rfdetr.errors import ConfigError


def problem_of(**settings: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        TrainConfig.from_dict({"dataset_dir": "data", **settings})
    return str(caught.value).removeprefix("TrainConfig: ")


@pytest.mark.parametrize(
    ("setting", "other"),
    [
        ({"early_stopping_patience": 5}, {"early_stopping": False}),
        ({"early_stopping_min_delta": 0.1}, {"early_stopping": False}),
        ({"early_stopping_use_ema": True}, {"early_stopping": False}),
        ({"lr_drop": 10}, {"lr_scheduler": "cosine"}),
        ({"lr_encoder": 1e-5}, {"freeze_encoder": True}),
        ({"lr_vit_layer_decay": 0.5}, {"freeze_encoder": True}),
        ({"ema_decay": 0.9}, {"use_ema": False}),
        ({"ema_tau": 10.0}, {"use_ema": False}),
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_a_setting_without_effect_is_refused(setting: dict[str, Any], other: dict[str, Any]) -> None:
    (name, value), (reason, idle) = *setting.items(), *other.items()
    assert problem_of(**setting, **other) == (
        f"{name}={value!r} has no effect with {reason}={idle!r}; leave it out or change {reason}"
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        pytest.param(
            {"warmup_epochs": 3, "epochs": 2}, "warmup_epochs=3.0 is longer than epochs=2", id="warm-up beyond the end"
        ),
        pytest.param(
            {"num_workers": 0, "prefetch_factor": 4},
            "prefetch_factor=4 needs num_workers above 0",
            id="prefetching without workers",
        ),
        pytest.param(
            {"num_workers": 0, "persistent_workers": True},
            "persistent_workers=True needs num_workers above 0",
            id="persistent workers without workers",
        ),
        pytest.param(
            {"early_stopping": True, "early_stopping_use_ema": True, "use_ema": False},
            "early_stopping_use_ema=True has no effect with use_ema=False; leave it out or change use_ema",
            id="watching averaged weights that are not there",
        ),
        pytest.param(
            {"accelerator": "gpu", "device": "cpu"}, "accelerator='gpu' is not for device='cpu'", id="GPU on the CPU"
        ),
        pytest.param(
            {"accelerator": "cpu", "device": "cuda:1"},
            "accelerator='cpu' is not for device='cuda:1'",
            id="CPU on a GPU",
        ),
        pytest.param(
            {"devices": 2, "device": "cuda:1"}, "devices=2 is not for device='cuda:1', which is one", id="two as one"
        ),
        pytest.param({"devices": 2, "device": "mps"}, "devices=2 is not for device='mps', which is one", id="Apple"),
        pytest.param(
            {"devices": "0,1", "accelerator": "cpu"},
            "devices='0,1' are GPUs, but accelerator='cpu'",
            id="GPUs, but none",
        ),
        pytest.param(
            {"precision": "fp16", "device": "cpu"},
            "precision='fp16' is not for device='cpu'; use '32' or 'bf16'",
            id="half precision on the CPU",
        ),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings: dict[str, Any], message: str) -> None:
    assert problem_of(**settings) == message


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        pytest.param({"dataset_dir": ""}, "dataset_dir: must not be empty", id="no dataset"),
        pytest.param({"output_dir": " "}, "output_dir: must not be empty", id="no folder for results"),
        pytest.param({"resume": ""}, "resume: must not be empty", id="no checkpoint"),
        pytest.param({"output_dir": "a\0b"}, "output_dir: is no path: 'a\\x00b'", id="no path"),
        pytest.param({"drop_path": 1}, "drop_path: input should be less than 1, got 1", id="all blocks dropped"),
        pytest.param(
            {"batch_size": 0}, "batch_size: input should be greater than 0, or 'auto', got 0", id="empty batches"
        ),
        *(
            pytest.param(
                {"devices": devices},
                f"devices: must be a number above 0, 'auto', or different GPU indices as '0,2', got {devices!r}",
                id=f"devices {devices}",
            )
            for devices in (0, -1, "all", "0,0", "0,", "")
        ),
        pytest.param({"class_names": []}, "class_names: must not be empty, nor a name among them", id="no names"),
        pytest.param({"class_names": ["a", ""]}, "class_names: must not be empty, nor a name among them", id="no name"),
        pytest.param(
            {"class_names": ["cat", "dog", "cat"]},
            "class_names: each class needs a name of its own, but 'cat' is there twice",
            id="a name twice",
        ),
    ],
)
def test_values_that_are_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    assert problem_of(**settings) == message


@pytest.mark.parametrize("name", [name for name in TrainConfig.model_fields if name != "dataset_dir"])
def test_a_typing_error_in_any_name_finds_it(name: str) -> None:
    assert problem_of(**{f"{name}_": 1}) == f"{name}_: no such setting. Did you mean {name!r}?"


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({"lr_scheduler": "cosine", "lr_min_factor": 0.1}, id="floor of the cosine"),
        pytest.param({"early_stopping": True, "early_stopping_patience": 3}, id="patience with early stopping"),
        pytest.param({"num_workers": 0, "persistent_workers": False}, id="no workers, none of them persistent"),
        pytest.param({"warmup_epochs": 2, "epochs": 2}, id="warm-up to the end"),
        pytest.param({"skip_best_epochs": 1, "epochs": 2}, id="the last can be best"),
        pytest.param({"dataset_dir": Path("data")}, id="a path"),
        pytest.param({"progress_bar": False}, id="no bar"),
        pytest.param({"progress_bar": "rich"}, id="a bar by name"),
        pytest.param({"class_names": ["cat", "dog"]}, id="names of classes"),
        pytest.param({"precision": 32}, id="a number format as YAML reads it"),
        pytest.param({"device": "cuda:1", "accelerator": "gpu"}, id="a GPU of several"),
        pytest.param({"device": "cuda", "accelerator": "cpu"}, id="the default, and what decides"),
        pytest.param({"device": "mps", "accelerator": "gpu", "devices": "auto"}, id="Apple's GPU"),
        pytest.param({"device": "cpu", "devices": 2}, id="two processes on the CPU"),
        pytest.param({"fp16_eval": True, "device": "cpu"}, id="evaluation in half precision on the CPU"),
    ],
)
def test_settings_that_go_together(settings: dict[str, Any]) -> None:
    config = TrainConfig.from_dict({"dataset_dir": "data", **settings})
    assert config.given().keys() >= settings.keys()
    assert config.remarks() == []


@pytest.mark.parametrize(
    ("settings", "remark"),
    [
        pytest.param({"project": "pets"}, "project has no effect without wandb or mlflow", id="project"),
        pytest.param(
            {"run": "first", "tensorboard": False}, "run has no effect without wandb, mlflow or tensorboard", id="run"
        ),
        pytest.param(
            {"lr_min_factor": 0.1},
            "lr_min_factor=0.1 has no effect with lr_scheduler='step'; leave it out or change lr_scheduler",
            id="floor without cosine",
        ),
        pytest.param(
            {"expanded_scales": False, "multi_scale": False},
            "expanded_scales=False has no effect with multi_scale=False; leave it out or change multi_scale",
            id="scales without multi-scale",
        ),
        pytest.param(
            {"early_stopping": True, "eval_interval": 9, "epochs": 9},
            "early_stopping cannot stop: eval_interval=9 evaluates at the end only",
            id="early stopping after the end",
        ),
        pytest.param(
            {"skip_best_epochs": 4, "epochs": 4},
            "skip_best_epochs=4 leaves none of epochs=4 to be the best",
            id="nothing can be best",
        ),
        pytest.param(
            {"compute_test_loss": False},
            "compute_test_loss=False has no effect with run_test=False; leave it out or change run_test",
            id="loss of a test that is not made",
        ),
        pytest.param(
            {"gradient_checkpointing": True, "freeze_encoder": True},
            "gradient_checkpointing=True has no effect with freeze_encoder=True; leave it out or change freeze_encoder",
            id="nothing to recompute",
        ),
    ],
)
def test_what_is_needless_but_harmless_is_only_remarked(settings: dict[str, Any], remark: str) -> None:
    assert TrainConfig.from_dict({"dataset_dir": "data", **settings}).remarks() == [remark]


def test_a_config_without_changes_has_no_remarks() -> None:
    assert TrainConfig(dataset_dir="data").remarks() == []
    assert TrainConfig(dataset_dir="data", run="first").remarks() == []


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({"lr_scheduler": "cosine", "early_stopping": True, "num_workers": 0}, id="without effect of some"),
        pytest.param({"use_ema": False, "multi_scale": False, "freeze_encoder": True}, id="with much switched off"),
        pytest.param({"accelerator": "cpu", "devices": 2, "class_names": ["a", "b"]}, id="accelerator"),
        pytest.param({"device": "cuda:1", "batch_size": "auto", "resume": Path("auto")}, id="device"),
    ],
)
def test_a_config_can_be_read_back_from_the_settings_it_was_saved_with(settings: dict[str, Any]) -> None:
    config = TrainConfig.from_dict({"dataset_dir": "data", **settings})
    assert TrainConfig.from_dict(config.given()) == config
    assert TrainConfig.from_dict(yaml.safe_load(yaml.safe_dump(config.plain()))).plain() == config.plain()


@pytest.mark.parametrize(("given", "devices"), [("2", 2), (2, 2), ("0,1", "0,1"), ("auto", "auto")])
def test_devices_are_a_number_or_a_description(given: str | int, devices: str | int) -> None:
    assert TrainConfig(dataset_dir="data", devices=given).devices == devices


@pytest.mark.parametrize(
    ("size", "settings", "problems"),
    [
        pytest.param("nano", {}, [], id="nothing"),
        pytest.param("nano", {"resolution": 512, "mask_ce_loss_coef": 5.0}, [], id="what it can take"),
        pytest.param(
            "nano",
            {"resolution": 100, "mask_ce_loss_coef": 1.0, "mask_point_sample_ratio": 4, "copy_paste": 0.5},
            [
                "resolution=100 is not a multiple of patch_size x num_windows = 32; nearest: 96 or 128",
                "mask_ce_loss_coef: of no effect on a detection model; leave it out or use a seg- size",
                "mask_point_sample_ratio: of no effect on a detection model; leave it out or use a seg- size",
                "copy_paste: of no effect on a detection model; leave it out or use a seg- size",
            ],
            id="resolution and masks",
        ),
        pytest.param("seg-nano", {"resolution": 300, "copy_paste": 0.5}, [], id="a model with masks"),
        pytest.param(
            "base",
            {"resolution": 20},
            ["resolution=20 is not a multiple of patch_size x num_windows = 56; nearest: 56"],
            id="below the first",
        ),
    ],
)
def test_what_only_the_model_knows(size: str, settings: dict[str, Any], problems: list[str]) -> None:
    model: ModelConfig = preset(size)
    assert train_problems(model, settings) == problems


@pytest.mark.parametrize(("model", "is_file"), [("nano", False), ("run/checkpoint.pth", True), ("a.safetensors", True)])
def test_a_model_is_a_size_or_a_file(model: str, is_file: bool) -> None:
    assert ModelChoice(model=model).is_file == is_file


def test_a_model_that_is_neither() -> None:
    with pytest.raises(ConfigError, match=r"^ModelChoice: model: no size 'nanno'\. .* Did you mean 'nano'\?$"):
        ModelChoice(model="nanno")


def test_the_recipe_for_random_weights_is_made_of_settings() -> None:
    config = TrainConfig(dataset_dir="data", **scratch_recipe())
    assert (config.lr_vit_layer_decay, config.lr_component_decay) == (1, 1)
    assert config.lr == config.lr_encoder


def test_a_prediction_needs_images() -> None:
    with pytest.raises(ConfigError, match="images: tuple should have at least 1 item"):
        PredictConfig(images=())
    with pytest.raises(ConfigError, match="images: must not be empty"):
        PredictConfig(images=("a.jpg", ""))


def test_an_evaluation_writes_nowhere_or_to_a_folder() -> None:
    assert EvaluateConfig(dataset_dir="data").output_dir is None
    with pytest.raises(ConfigError, match="output_dir: must not be empty"):
        EvaluateConfig(dataset_dir="data", output_dir="")


@pytest.mark.parametrize("kind", [str, Path])
def test_the_folder_of_the_user_is_known_without_a_shell(
    kind: type[str | Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    config = TrainConfig(dataset_dir=kind("~/cells"), output_dir=kind("~/runs"), resume=kind("~/runs/last.pth"))
    assert config.dataset_dir == kind(tmp_path / "cells")
    assert config.output_dir == kind(tmp_path / "runs")
    assert config.resume == kind(tmp_path / "runs" / "last.pth")


def test_a_user_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match=r"output_dir: no such user: '~nobody-here/runs'; a folder of that name is"):
        TrainConfig(dataset_dir="cells", output_dir="~nobody-here/runs")


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_a_seed_is_one_that_torch_takes(seed: int) -> None:
    with pytest.raises(ConfigError, match="seed: input should be"):
        TrainConfig(dataset_dir="cells", seed=seed)
    with pytest.raises(ConfigError, match="init_seed: input should be"):
        ModelSettings(init_seed=seed)
