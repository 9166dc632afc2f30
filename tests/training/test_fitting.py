import re
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch

from rfdetr.data.reading import read_split
from rfdetr.distributed import process_group, world_of_environment
from rfdetr.errors import ConfigError
from rfdetr.launch import run_in_processes
from rfdetr.models.detector import Detector
from rfdetr.training.checkpoints import copy_bytes
from rfdetr.training.fitting import Trial, fitting_batch_size, largest_within
from rfdetr.training.memory import held_memory, return_free_memory
from rfdetr.training.setup import in_training

from .tiny import CPU, tiny_config, tiny_detector

T = TypeVar("T")


def trial_on(dataset_dir: Path, detector: Detector, **settings: Any) -> Trial:
    train_split = read_split(dataset_dir, "train")
    valid_split = read_split(dataset_dir, "valid")
    config = tiny_config(dataset_dir, dataset_dir / "unused", **{"batch_size": "auto", **settings})
    return Trial(detector, train_split, valid_split, config, CPU)


def detector_for(images: int) -> Detector:
    """It runs out of memory with more images at a time."""
    detector = tiny_detector(4)
    detector.register_forward_pre_hook(Limit(images))
    return detector


class Limit:
    def __init__(self, images: int) -> None:
        self.images = images

    def __call__(self, _: Detector, inputs: tuple[torch.Tensor, ...]) -> None:
        if len(inputs[0]) > self.images:
            raise torch.OutOfMemoryError


def test_a_number_is_left_alone(shapes: Path) -> None:
    trial = trial_on(shapes, tiny_detector(4), batch_size=3)
    config = fitting_batch_size(trial.detector, trial.train_split, trial.valid_split, trial.config, CPU)
    assert config is trial.config


@pytest.mark.parametrize(
    ("accumulated", "limit", "batch_size"),
    [
        pytest.param(1, 4, 4, id="the whole step"),
        pytest.param(3, 7, 6, id="a divisor of 12"),
        pytest.param(1, 1, 1, id="one image"),
        pytest.param(1, 0, 0, id="not even that"),
    ],
)
def test_of_a_card_the_largest_batch_that_does_not_run_out_of_memory(
    accumulated: int, limit: int, batch_size: int, shapes: Path
) -> None:
    trial = trial_on(shapes, detector_for(limit), grad_accum_steps=accumulated)
    assert trial.on_card()[0] == batch_size


def in_fresh_process(measured: Callable[[Path], T], dataset_dir: Path) -> T:
    """From one that has done other things before, the system takes pages back while it is measured."""
    return run_in_processes(1, measured, dataset_dir)


def extrapolated_on(dataset_dir: Path) -> tuple[int, int, int]:
    trial = trial_on(dataset_dir, hungry_detector())
    trial.needed(1)  # what a first step leaves behind is not counted
    return_free_memory()
    held = held_memory(CPU)
    trial.usable = round((held + 2.8 * HUNGER) / 0.8)  # far from both 2 and 4 images
    return held, *trial.extrapolated()


def test_what_more_images_take_is_extrapolated_from_one_and_two(shapes: Path) -> None:
    held, found, needed = in_fresh_process(extrapolated_on, shapes)
    assert found == 2
    assert needed == pytest.approx(held + 2 * HUNGER, abs=HUNGER / 2)


def needed_with_and_without_average(dataset_dir: Path) -> tuple[int, int]:
    detector = hungry_detector()
    detector.register_buffer("large", torch.zeros(HUNGER // 4))
    trial, small = trial_on(dataset_dir, detector), trial_on(dataset_dir, detector, use_ema=False)
    trial.needed(1)
    return trial.needed(1), small.needed(1)


def test_the_copy_that_a_checkpoint_is_written_from_counts(shapes: Path) -> None:
    """With an average of the weights there is one more of them in memory, and one more in the copy."""
    averaged, small = in_fresh_process(needed_with_and_without_average, shapes)
    assert averaged - small == pytest.approx(2 * HUNGER, abs=HUNGER / 2)


def needed_alone_and_by_two(dataset_dir: Path) -> tuple[int, int]:
    detector = tiny_detector(4)
    detector.register_parameter("large", torch.nn.Parameter(torch.zeros(HUNGER // 4)))
    trial = trial_on(dataset_dir, detector)
    trial.needed(1)
    return trial.needed(1), replace(trial, devices=2).needed(1)


def test_the_gradients_that_processes_exchange_count(shapes: Path) -> None:
    alone, shared = in_fresh_process(needed_alone_and_by_two, shapes)
    assert shared - alone == pytest.approx(HUNGER, abs=HUNGER / 2)


def test_of_what_is_frozen_a_checkpoint_has_the_weights_alone(shapes: Path) -> None:
    detector = tiny_detector(4)
    encoder = sum(parameter.nbytes for parameter in detector.backbone.vit.parameters() if parameter.requires_grad)
    sizes = []
    frozen = {"freeze_encoder": True, "lr_encoder": 1.5e-4, "lr_vit_layer_decay": 0.8}  # rates have to be the defaults
    for settings in ({}, frozen):
        config = tiny_config(shapes, shapes / "unused", **settings)
        with in_training(detector, config, CPU):
            sizes.append(copy_bytes(detector, config, CPU))
    assert sizes[0] - sizes[1] == 2 * encoder
    assert copy_bytes(detector, config, torch.device("cuda")) == 0


@pytest.mark.parametrize(
    ("room", "batch_size"), [(9999, 16), (1450, 16), (1449, 8), (599, 4), (100, 1), (99, 0), (0, 0)]
)
def test_the_largest_batch_within_so_many_bytes(room: int, batch_size: int) -> None:
    assert largest_within(room, 100, 90, [16, 8, 4, 2, 1]) == batch_size


HUNGER = 200 * 2**20


def hungry_detector() -> Detector:
    """It needs so many bytes for each image."""
    detector = tiny_detector(4)
    detector.register_forward_pre_hook(eat)
    return detector


def eat(_: Detector, inputs: tuple[torch.Tensor, ...]) -> None:
    food = torch.ones(len(inputs[0]) * HUNGER // 4)
    time.sleep(0.05)
    del food


def test_the_choice_is_said_and_keeps_the_images_per_step(shapes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = trial_on(shapes, tiny_detector(4), grad_accum_steps=2).settle()
    assert (config.batch_size, config.grad_accum_steps) == (8, 1)
    assert re.fullmatch(
        r"batch_size: 8 fits \(\d\.\d of [\d.]+ GiB\), so grad_accum_steps=1 keeps 8 images per step\n",
        capsys.readouterr().out,
    )


def test_where_nothing_fits_advice_is_given(shapes: Path) -> None:
    trial = trial_on(shapes, tiny_detector(4), multi_scale=True)
    trial.usable = 2**20
    with pytest.raises(ConfigError) as caught:
        trial.settle()
    assert re.fullmatch(
        r"batch_size: not even 1 image at a time fits into the memory of cpu \(\d\.\d of 0\.0 GiB\); "
        r"try gradient_checkpointing=True, multi_scale=False, a smaller resolution",
        str(caught.value),
    )


def choose_with_others(dataset_dir: Path, output_dir: Path) -> None:
    world = world_of_environment()
    assert world
    with process_group(world, CPU):
        trial = trial_on(dataset_dir, detector_for(images=(4, 2)[world.rank]))
        on_card = trial.on_card()[0]
        chosen = trial.settle()
    (output_dir / f"{world.rank}").write_text(f"{on_card} {chosen.batch_size}")


def test_several_processes_agree_on_what_fits_all_of_them(shapes: Path, tmp_path: Path) -> None:
    run_in_processes(2, choose_with_others, shapes, tmp_path)
    assert (tmp_path / "0").read_text() == (tmp_path / "1").read_text() == "2 4"


def test_the_memory_of_a_machine_is_for_the_processes_on_it(shapes: Path) -> None:
    """Of a run on four machines this one has two."""
    alone = trial_on(shapes, tiny_detector(4))
    shared = replace(alone, devices=8, devices_here=2)
    assert shared.usable == pytest.approx(alone.usable / 2, rel=0.1)
