"""What a run is made of, as its settings want it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch

from rfdetr.config.model import ModelConfig, ModelSettings
from rfdetr.config.runs import TrainConfig
from rfdetr.data.annotations import Annotations
from rfdetr.data.batches import EpochBatches, multi_scale_sizes, step_scale
from rfdetr.data.geometry import SHORT_SIDES
from rfdetr.data.loader import Loader
from rfdetr.data.loading import training_loader
from rfdetr.data.pixel_cache import cached
from rfdetr.devices import as_current
from rfdetr.distributed import rank_and_world_size, world_of_environment
from rfdetr.host_memory import freed_memory_kept
from rfdetr.models.detector import Detector


@contextmanager
def in_training(detector: Detector, config: TrainConfig, device: torch.device) -> Iterator[None]:
    """The detector on its device and as the settings want it; afterwards in evaluation mode, as it was."""
    vit = detector.to(device).train().backbone.vit
    checkpointing = vit.gradient_checkpointing
    trained = [parameter for parameter in vit.parameters() if parameter.requires_grad]
    vit.set_drop_path(config.drop_path)
    vit.gradient_checkpointing = checkpointing or config.gradient_checkpointing
    try:
        for parameter in trained:
            parameter.requires_grad_(not config.freeze_encoder)
        with as_current(device), freed_memory_kept():
            yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
        vit.gradient_checkpointing = checkpointing
        vit.set_drop_path(0.0)
        detector.eval()
        detector.zero_grad()  # gradients are as large as the weights


def epoch_batches(train_split: Annotations, model: ModelConfig, config: TrainConfig, seed: int) -> EpochBatches:
    """The steps of a run, for this process."""
    sizes = training_sizes(model, config)
    rank, world_size = rank_and_world_size()
    return EpochBatches(
        num_images=len(train_split),
        shards=train_split.shards,
        batch_size=int(config.batch_size),
        grad_accum_steps=config.grad_accum_steps,
        seed=seed,
        rank=rank,
        world_size=world_size,
        scale_of_step=lambda step: step_scale(sizes, seed, step),
    )


def training_sizes(model: ModelConfig, config: TrainConfig) -> list[int]:
    """The resolutions a run trains at, smallest first."""
    if not config.multi_scale:
        return [model.resolution]
    return multi_scale_sizes(model.resolution, model.block_size, config.expanded_scales)


def decoding_size(model: ModelConfig, config: TrainConfig) -> int:
    """Pixels of the shorter side of a picture below which it is not decoded: as much as any step can make use of."""
    return max(training_sizes(model, config)[-1], *SHORT_SIDES)


def open_loader(
    train_split: Annotations, batches: EpochBatches, model: ModelConfig, config: TrainConfig, device: torch.device
) -> Loader:
    """Loads the training images of a run; with `cache` each is decoded once."""
    at_least = decoding_size(model, config)
    if config.cache is not None:
        world = world_of_environment()
        processes = world.local_size if world else 1
        pictures = cached(train_split.pictures, train_split.sizes_hw, at_least, config.cache, num_processes=processes)
        train_split = replace(train_split, pictures=pictures)
    return training_loader(
        train_split,
        batches,
        augment=config.recipe,
        num_workers=config.num_workers,
        at_least=at_least,
        # Memory is pinned for transfers to a GPU; without one torch would warn.
        pin_memory=device.type == "cuda" and config.pin_memory is not False,
        persistent_workers=config.persistent_workers,
        prefetch_factor=config.prefetch_factor,
    )


def effective_settings(
    config: TrainConfig, model_settings: ModelSettings, detector: Detector, seed: int
) -> dict[str, Any]:
    """All settings of the run, as a file that `rfdetr train --config` takes; None, which is "not set", is left out."""
    model = detector.config
    shape = {name: value for name, value in model.plain().items() if name in ModelSettings.model_fields}
    run = {name: value for name, value in config.plain().items() if value is not None}
    settings = {"model": model.size, **model_settings.plain(), **run, **shape, "seed": seed, "resume": None}
    settings["gradient_checkpointing"] = detector.backbone.vit.gradient_checkpointing
    world = world_of_environment()
    if world is not None:  # so that the same run can be started without the program that has started this one
        settings |= {"devices": world.local_size, "num_nodes": world.size // world.local_size}
    return {name: value for name, value in settings.items() if value is not None or name == "pretrain_weights"}
