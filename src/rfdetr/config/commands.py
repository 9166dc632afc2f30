"""Configs of the commands that end with pictures to look at."""

from pathlib import Path
from typing import Any

from pydantic import Field, PositiveInt, field_validator

from rfdetr.config.base import Config
from rfdetr.config.values import AnyPath, OptimizedPrecision, Seed


class PredictConfig(Config):
    """What `rfdetr predict` does."""

    images: tuple[AnyPath, ...] = Field(min_length=1)
    """Images, or folders of images."""
    output_dir: AnyPath = "predictions"
    """Folder for the annotated images and `predictions.json`."""
    threshold: float = Field(default=0.5, ge=0, le=1)
    """Detections scored above this are kept."""
    batch_size: PositiveInt = 4
    """Images per forward pass."""
    optimize: bool = False
    """Prepare the model first, so that images take less time: on a CPU it needs the package `openvino`."""

    @field_validator("images", mode="before")
    @classmethod
    def _one_or_more(cls, value: Any) -> Any:
        return (value,) if isinstance(value, (str, Path)) else value


class OptimizeConfig(Config):
    """How `model.optimize` prepares a model for prediction."""

    precision: OptimizedPrecision = "auto"
    """`32`, `bf16`, `fp16` (GPU), `int8` in large layers and `32` or `bf16` beside it (CPU), `auto`: the fastest."""
    batch_size: PositiveInt = 1
    """Images per forward pass on a CPU, where more than one is seldom faster. On a GPU `predict` says."""


class DemoConfig(Config):
    """What `rfdetr demo` does: draws a dataset, trains on it from scratch, evaluates, shows the result."""

    output_dir: AnyPath = "demo"
    """Folder for the dataset, the checkpoints, `metrics.json` and the picture."""
    epochs: PositiveInt = 5
    """Passes over the training split."""
    train_images: PositiveInt = 256
    """Images drawn for training; a quarter as many each for validation and test."""
    seed: Seed = 0
    """Seed of the drawn images and of the training run."""
