"""RF-DETR: real-time detection transformers. Train, evaluate and run them on your own images."""

from rfdetr.api import (
    RFDETR,
    RFDETRBase,
    RFDETRLarge,
    RFDETRMedium,
    RFDETRNano,
    RFDETRSmall,
    from_checkpoint,
)
from rfdetr.config.model import ModelConfig, ModelSettings
from rfdetr.config.runs import EvaluateConfig, TrainConfig, scratch_recipe
from rfdetr.errors import ConfigError, DatasetError, ImageError, RFDETRError, TrainingError, WeightsError
from rfdetr.version import __version__

__all__ = [
    "RFDETR",
    "ConfigError",
    "DatasetError",
    "EvaluateConfig",
    "ImageError",
    "ModelConfig",
    "ModelSettings",
    "RFDETRBase",
    "RFDETRError",
    "RFDETRLarge",
    "RFDETRMedium",
    "RFDETRNano",
    "RFDETRSmall",
    "TrainConfig",
    "TrainingError",
    "WeightsError",
    "__version__",
    "from_checkpoint",
    "scratch_recipe",
]
