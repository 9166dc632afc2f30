"""RF-DETR: real-time detection transformers. Train, evaluate and run them on your own images."""

from rfdetr.api import (
    RFDETR,
    RFDETRBase,
    RFDETRLarge,
    RFDETRLargeDeprecated,
    RFDETRMedium,
    RFDETRNano,
    RFDETRSeg2XLarge,
    RFDETRSegLarge,
    RFDETRSegMedium,
    RFDETRSegNano,
    RFDETRSegPreview,
    RFDETRSegSmall,
    RFDETRSegXLarge,
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
    "RFDETRLargeDeprecated",
    "RFDETRMedium",
    "RFDETRNano",
    "RFDETRSeg2XLarge",
    "RFDETRSegLarge",
    "RFDETRSegMedium",
    "RFDETRSegNano",
    "RFDETRSegPreview",
    "RFDETRSegSmall",
    "RFDETRSegXLarge",
    "RFDETRSmall",
    "TrainConfig",
    "TrainingError",
    "WeightsError",
    "__version__",
    "from_checkpoint",
    "scratch_recipe",
]
