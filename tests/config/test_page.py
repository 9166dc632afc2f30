"""The reference page that users know: every parameter under its name, with its type and default, and with a proof."""

import ast
import inspect
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from rfdetr.api import RFDETR
from rfdetr.cli.main import parse
from rfdetr.cli.settings import flag_of, read_configs
from rfdetr.config.reference import REQUIRED, settings_list, type_text
from rfdetr.config.runs import TrainConfig

REPOSITORY = Path(__file__).parents[2]
# Name, type and default of every parameter on the page. What depends on the model has no default of its own.
PAGE = (
    ("dataset_dir", "str", REQUIRED),
    ("output_dir", "str", "output"),
    ("epochs", "int", 100),
    ("batch_size", "int", 4),
    ("grad_accum_steps", "int", 4),
    ("resume", "str", None),
    ("lr", "float", 1e-4),
    ("lr_encoder", "float", 1.5e-4),
    ("resolution", "int", None),
    ("weight_decay", "float", 1e-4),
    ("device", "str", "cuda"),
    ("gradient_checkpointing", "bool", False),
    ("use_ema", "bool", True),
    ("checkpoint_interval", "int", 10),
    ("skip_best_epochs", "int", 0),
    ("early_stopping", "bool", False),
    ("early_stopping_patience", "int", 10),
    ("early_stopping_min_delta", "float", 0.001),
    ("early_stopping_use_ema", "bool", False),
    ("tensorboard", "bool", True),
    ("wandb", "bool", False),
    ("project", "str", None),
    ("run", "str", None),
    ("eval_max_dets", "int", 500),
    ("eval_interval", "int", 1),
    ("log_per_class_metrics", "bool", True),
    ("progress_bar", "str | bool | None", None),
    ("lr_scheduler", "str", "step"),
    ("lr_min_factor", "float", 0.0),
    ("warmup_epochs", "float", 0.0),
    ("drop_path", "float", 0.0),
    ("accelerator", "str", "auto"),
    ("seed", "int", None),
    ("fp16_eval", "bool", False),
    ("compute_val_loss", "bool", True),
    ("compute_test_loss", "bool", True),
    ("pin_memory", "bool", None),
    ("persistent_workers", "bool", None),
    ("prefetch_factor", "int", None),
)
# What we take beyond the page: paths as `Path`, None where it is the default, and a word.
BEYOND = {"batch_size": {"str"}, "dataset_dir": {"Samples", "Mapping"}}
# For parameters whose default is None, a value to give.
VALUES = {
    "resume": "run/checkpoint.pth",
    "resolution": 512,
    "project": "pets",
    "run": "first",
    "progress_bar": "rich",
    "seed": 7,
    "pin_memory": True,
    "persistent_workers": False,
    "prefetch_factor": 3,
}

API, TRAINING = "tests/test_api.py", "tests/training"
RUN, STEP, SELECTION, LOGGERS = (f"{TRAINING}/test_{name}.py" for name in ("run", "step", "selection", "loggers"))
SETTINGS, IMAGES, PLACEMENT = (f"{TRAINING}/test_{name}.py" for name in ("settings", "image_settings", "placement"))
RATES, SCHEDULE = f"{SETTINGS}::test_a_weight_moves_by_its_rate", f"{SETTINGS}::test_steps_follow_the_schedule"
LOSSES = f"{SETTINGS}::test_a_loss_is_weighted_by_its_coefficient"
MASKS = f"{TRAINING}/test_segmentation.py::test_a_setting_of_masks_changes_the_gradient"
AVERAGE = f"{SETTINGS}::test_the_average_decays_as_ema_decay_and_ema_tau_say"
BATCHES = f"{SETTINGS}::test_batch_sizes_are_the_images_of_a_forward_pass"
SCALES = f"{IMAGES}::test_images_are_of_the_sizes_of_multi_scale_and_expanded_scales"
EARLY_STOPPING = f"{SELECTION}::test_early_stopping_with_a_patience_of_two"
NO_AVERAGE = f"{RUN}::test_without_averaged_weights_there_is_no_file_of_them"
FILES = f"{SETTINGS}::test_files_go_to_output_dir_and_tensorboard_is_one_of_them_where_wanted"
MLFLOW = f"{LOGGERS}::test_mlflow_keeps_curves_pictures_and_settings_in_files"
HELD_OUT = "tests/data/test_validation_split.py"
TRANSFORMS = "tests/data/test_transforms.py"
CHANGES = f"{TRANSFORMS}::test_each_option_changes_pictures"
AMOUNTS = "tests/data/test_geometry.py::test_amounts_are_the_most_either_way"
COLORS = "tests/data/test_colour.py::test_an_option_changes_what_it_says"
# The test that shows what a setting changes.
PROOFS = {
    "dataset_dir": f"{API}::test_classes_are_those_of_the_training_split",
    "output_dir": FILES,
    "epochs": f"{RUN}::test_metrics_csv_has_a_row_per_epoch",
    "batch_size": BATCHES,
    "grad_accum_steps": f"{STEP}::test_the_split_of_a_step_does_not_change_its_gradient",
    "resume": f"{TRAINING}/test_resume.py::test_a_stopped_run_ends_as_the_straight_one",
    "class_names": "tests/test_class_names.py::test_names_are_given_by_position_and_stay",
    "seed": f"{RUN}::test_one_seed_gives_one_run_for_any_number_of_workers",
    "lr": RATES,
    "lr_encoder": RATES,
    "lr_vit_layer_decay": RATES,
    "lr_component_decay": RATES,
    "weight_decay": f"{SETTINGS}::test_weight_decay_shrinks_weights",
    "valid_fraction": f"{HELD_OUT}::test_a_part_of_the_training_images_is_never_taken_silently",
    "valid_seed": f"{HELD_OUT}::test_another_seed_takes_others",
    "clip_max_norm": f"{STEP}::test_the_gradient_norm_is_clipped",
    "lr_scheduler": SCHEDULE,
    "lr_drop": SCHEDULE,
    "lr_min_factor": SCHEDULE,
    "warmup_epochs": SCHEDULE,
    "drop_path": f"{SETTINGS}::test_drop_path_skips_blocks_of_the_encoder",
    "freeze_encoder": f"{SETTINGS}::test_a_frozen_encoder_stays_as_it_is",
    "cls_loss_coef": LOSSES,
    "bbox_loss_coef": LOSSES,
    "giou_loss_coef": LOSSES,
    "mask_ce_loss_coef": MASKS,
    "mask_dice_loss_coef": MASKS,
    "mask_point_sample_ratio": MASKS,
    "use_ema": NO_AVERAGE,
    "ema_decay": AVERAGE,
    "ema_tau": AVERAGE,
    "multi_scale": SCALES,
    "expanded_scales": SCALES,
    "augment": f"{IMAGES}::test_augment_none_trains_on_the_images_as_they_are",
    "horizontal_flip": f"{TRANSFORMS}::test_a_flip_mirrors_pixels_boxes_and_masks",
    "vertical_flip": f"{TRANSFORMS}::test_a_flip_mirrors_pixels_boxes_and_masks",
    "rotate90": f"{TRANSFORMS}::test_quarter_turns_move_pixels_and_masks_alike",
    "crop": CHANGES,
    "affine": f"{TRANSFORMS}::test_a_chance_says_how_many_pictures_its_amounts_change",
    "degrees": AMOUNTS,
    "scale": AMOUNTS,
    "translate": AMOUNTS,
    "shear": AMOUNTS,
    "color_jitter": f"{TRANSFORMS}::test_a_chance_says_how_many_pictures_its_amounts_change",
    "brightness": COLORS,
    "contrast": COLORS,
    "saturation": COLORS,
    "hue": COLORS,
    "grayscale": COLORS,
    "blur": COLORS,
    "noise": COLORS,
    "mosaic": CHANGES,
    "mixup": CHANGES,
    "copy_paste": CHANGES,
    "num_workers": f"{IMAGES}::test_num_workers_are_the_processes_that_load_images",
    "max_bad_images": f"{TRAINING}/test_unreadable.py::test_more_than_max_bad_images_end_the_run",
    "cache": f"{IMAGES}::test_with_cache_pictures_are_decoded_once_and_the_same",
    "max_image_megapixels": "tests/test_pictures.py::test_pictures_of_more_than_max_image_megapixels_are_refused",
    "pin_memory": f"{IMAGES}::test_pin_memory_reaches_the_loader",
    "persistent_workers": f"{IMAGES}::test_persistent_workers_live_longer_than_an_epoch",
    "prefetch_factor": f"{IMAGES}::test_prefetch_factor_is_the_batches_loaded_ahead",
    "resolution": f"{API}::test_a_resolution_to_train_at_stays",
    "device": f"{PLACEMENT}::test_device_says_where_to_train",
    "gradient_checkpointing": f"{SETTINGS}::test_gradient_checkpointing_keeps_less_for_the_same_gradient",
    "precision": f"{SETTINGS}::test_precision_is_the_number_format_of_the_forward_pass",
    "accelerator": f"{PLACEMENT}::test_accelerator_decides_where_device_leaves_it_open",
    "devices": f"{PLACEMENT}::test_devices_are_the_processes_of_a_machine",
    "num_nodes": f"{PLACEMENT}::test_num_nodes_are_the_machines",
    "strategy": f"{PLACEMENT}::test_strategy_ddp_shares_gradients",
    "checkpoint_interval": f"{RUN}::test_a_run_leaves_its_checkpoints_metrics_and_settings",
    "checkpoint_every_steps": f"{SETTINGS}::test_checkpoints_within_an_epoch_by_steps",
    "checkpoint_every_minutes": f"{SETTINGS}::test_checkpoints_within_an_epoch_by_minutes",
    "best_metric": f"{SETTINGS}::test_best_metric_selects_the_best_weights",
    "skip_best_epochs": f"{SELECTION}::test_the_first_epochs_can_be_left_out",
    "early_stopping": f"{RUN}::test_a_stalled_run_stops_early",
    "early_stopping_patience": EARLY_STOPPING,
    "early_stopping_min_delta": EARLY_STOPPING,
    "early_stopping_use_ema": EARLY_STOPPING,
    "eval_interval": f"{RUN}::test_evaluation_comes_every_few_epochs_and_at_the_end",
    "eval_batch_size": BATCHES,
    "eval_max_dets": f"{SETTINGS}::test_eval_max_dets_limits_what_counts",
    "log_per_class_metrics": "tests/training/test_display.py::test_each_class_has_its_ap_below_the_line",
    "compute_val_loss": NO_AVERAGE,
    "compute_test_loss": f"{API}::test_the_loss_of_the_test_split_can_be_left_out",
    "fp16_eval": f"{SETTINGS}::test_fp16_eval_evaluates_in_half_precision",
    "run_test": f"{API}::test_the_test_split_can_be_evaluated_at_the_end",
    "tensorboard": FILES,
    "wandb": f"{LOGGERS}::test_wandb_offline",
    "mlflow": MLFLOW,
    "project": MLFLOW,
    "run": MLFLOW,
    "progress_bar": f"{RUN}::test_a_bar_does_not_change_the_lines",
    "sample_interval": f"{SETTINGS}::test_sample_interval_is_the_epochs_between_sheets",
}

each_parameter = pytest.mark.parametrize(("name", "kind", "default"), PAGE, ids=[name for name, _, _ in PAGE])


def rows_of(page: str) -> dict[str, tuple[str, str]]:
    """Name -> type and default, of all tables of parameters."""
    lines = [line.removesuffix(" |") for line in page.splitlines()]
    starts = [i + 4 for i in range(len(lines)) if lines[i : i + 4] == ["| Parameter", "Type", "Default", "Description"]]
    rows: dict[str, tuple[str, str]] = {}
    for start in starts:
        for i in range(start, len(lines) - 3, 4):
            name, kind, default = lines[i : i + 3]
            if not name.isidentifier() or not name.islower():
                break
            default = "Model-specific" if default == "Model-dependent" else default
            assert rows.setdefault(name, (kind, default)) == (kind, default)
    return rows


def test_the_table_here_is_that_of_the_page(shared: Path) -> None:
    rows = rows_of((shared / "spec" / "reference-page.txt").read_text())
    found = {name: (kind, default_of(text)) for name, (kind, text) in rows.items()}
    assert found == {name: (kind, default) for name, kind, default in PAGE}


def default_of(text: str) -> Any:
    words = {REQUIRED: REQUIRED, "Model-specific": None}
    return words[text] if text in words else ast.literal_eval(text)


def test_the_examples_of_the_page_are_accepted(shared: Path) -> None:
    examples = (shared / "spec" / "reference-page.txt").read_text().split("model.train(")[1:]
    for example in examples:
        call = ast.parse(f"train({example.split(')')[0]})", mode="eval").body
        assert isinstance(call, ast.Call)
        settings = {str(argument.arg): ast.literal_eval(argument.value) for argument in call.keywords}
        assert TrainConfig(**settings).remarks() == []


@each_parameter
def test_the_config_has_it(name: str, kind: str, default: Any) -> None:
    (row,) = (row for row in settings_list(TrainConfig) if row["name"] == name)
    assert (type(row["default"]), row["default"]) == (type(default), default)
    assert_type(name, kind, row["type"], default)


@each_parameter
def test_train_takes_it(name: str, kind: str, default: Any) -> None:
    parameter = inspect.signature(RFDETR.train).parameters[name]
    assert parameter.default == (inspect.Parameter.empty if default == REQUIRED else default)
    assert_type(name, kind, type_text(parameter.annotation), default)


def assert_type(name: str, kind: str, found: str, default: Any) -> None:
    page, ours = set(kind.split(" | ")), set(found.split(" | "))
    assert page <= ours
    assert ours - page <= {"Path"} | BEYOND.get(name, set()) | ({"None"} if default is None else set())


@each_parameter
def test_the_command_line_takes_it(name: str, kind: str, default: Any) -> None:
    given = VALUES.get(name, "data" if default == REQUIRED else default)
    on_or_off = flag_of(name) if given else flag_of(f"no_{name}")
    flags = [on_or_off] if isinstance(given, bool) else [flag_of(name), str(given)]
    command, settings, problems = parse(["train", *(flags if name == "dataset_dir" else ["data", *flags])])
    assert problems == []
    settings.pop("dry_run")
    assert_taken(read_configs(settings, command.configs)[-1], name, given)


@each_parameter
def test_a_settings_file_takes_it(name: str, kind: str, default: Any, tmp_path: Path) -> None:
    given = VALUES.get(name, "data" if default == REQUIRED else default)
    (tmp_path / "settings.yaml").write_text(yaml.safe_dump({"dataset_dir": "data", name: given}))
    assert_taken(read_configs({"config": tmp_path / "settings.yaml"}, [TrainConfig])[-1], name, given)


def assert_taken(config: Any, name: str, given: Any) -> None:
    found = config.given()[name]
    assert (type(found), found) == (type(given), given)


@cache
def named_in(path: str) -> set[str]:
    body = ast.parse((REPOSITORY / path).read_text(encoding="utf-8")).body if (REPOSITORY / path).exists() else []
    return {node.name for node in body if isinstance(node, ast.FunctionDef)}


def test_every_setting_has_a_proof() -> None:
    assert set(PROOFS) == set(TrainConfig.model_fields)


@pytest.mark.parametrize(("setting", "proof"), PROOFS.items(), ids=PROOFS)
def test_the_proof_is_there(setting: str, proof: str) -> None:
    path, name = proof.split("::")
    assert name in named_in(path), proof
    assert setting in (REPOSITORY / path).read_text(encoding="utf-8"), f"{path} does not speak of {setting}"
