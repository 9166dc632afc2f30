"""A detector small enough to train in a test, and how it is trained."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_post_hook

from rfdetr.config.model import ModelConfig, ModelSettings
from rfdetr.config.runs import TrainConfig
from rfdetr.data.reading import read_split
from rfdetr.models.detector import Detector
from rfdetr.training.run import TrainingResult, train

CPU = torch.device("cpu")
TINY = ModelConfig(
    size="nano",
    resolution=64,
    positional_encoding_size=4,
    encoder_width=32,
    encoder_depth=3,
    encoder_heads=2,
    out_feature_indexes=(1, 2, 3),
    hidden_dim=32,
    dec_layers=2,
    sa_nheads=2,
    ca_nheads=2,
    num_queries=10,
    num_select=20,
    group_detr=3,
    num_classes=4,
)
# So small that all steps see the same weights.
STILL: dict[str, Any] = {"lr": 1e-12, "lr_encoder": 1e-12, "clip_max_norm": 0, "augment": "none", "use_ema": False}


def tiny_config(dataset_dir: Path, output_dir: Path, **settings: Any) -> TrainConfig:
    """One epoch of five steps at rates that suit random weights, unless told otherwise."""
    usual: dict[str, Any] = {
        "epochs": 1,
        "batch_size": 4,
        "grad_accum_steps": 1,
        "num_workers": 0,
        "seed": 0,
        "lr": 1e-3,
        "lr_encoder": 1e-3,
        "lr_vit_layer_decay": 1.0,
        "lr_component_decay": 1.0,
        "clip_max_norm": 1.0,
        "multi_scale": False,
        "sample_interval": 0,
        "tensorboard": False,
        "precision": "32",  # so that what is equal but for rounding can be told from what is not
    }
    return TrainConfig(dataset_dir=dataset_dir, output_dir=output_dir, **{**usual, **settings})


def train_tiny(
    dataset_dir: Path, output_dir: Path, detector: Detector | None = None, **settings: Any
) -> tuple[TrainingResult, Detector]:
    """What a run leaves behind, and the detector as its last step left it."""
    config = tiny_config(dataset_dir, output_dir, **settings)
    train_split = read_split(dataset_dir, "train")
    valid_split = read_split(dataset_dir, "valid")
    detector = detector or tiny_detector(len(train_split.classes))
    return train(detector, train_split, valid_split, config, ModelSettings(), CPU), detector


def tiny_detector(num_classes: int, seed: int = 0) -> Detector:
    return Detector(TINY.replace(num_classes=num_classes), seed)


@contextmanager
def recorded_gradients() -> Iterator[list[Tensor]]:
    """The gradient that every optimiser step inside has used, as one vector."""
    gradients: list[Tensor] = []

    def record(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in parameters]))

    hook = register_optimizer_step_post_hook(record)
    try:
        yield gradients
    finally:
        hook.remove()


def gradients_of(dataset_dir: Path, output_dir: Path, **settings: Any) -> list[Tensor]:
    with recorded_gradients() as gradients:
        train_tiny(dataset_dir, output_dir, **{**STILL, **settings})
    return gradients


def assert_close(gradients: list[Tensor], expected: list[Tensor]) -> None:
    assert len(gradients) == len(expected) == 5
    for gradient, other in zip(gradients, expected, strict=True):
        assert other.norm() > 0
        assert (gradient - other).norm() < 1e-5 * other.norm()
