"""The published sizes as rows of one table (facts: RF-DETR, arXiv:2511.09554, and its released configurations)."""

from typing import Any

from rfdetr.config.base import suggestion
from rfdetr.config.model import ModelConfig, ModelSettings
from rfdetr.errors import ConfigError

PRESETS = {
    "nano": ModelConfig(size="nano", resolution=384, positional_encoding_size=24, dec_layers=2),
    "small": ModelConfig(size="small", resolution=512, positional_encoding_size=32, dec_layers=3),
    "medium": ModelConfig(size="medium", resolution=576, positional_encoding_size=36, dec_layers=4),
    "large": ModelConfig(size="large", resolution=704, positional_encoding_size=44, dec_layers=4),
    # Deprecated upstream, kept because people hold its weights. Its DINOv2 grid (37) is not its own (40).
    "base": ModelConfig(
        size="base",
        resolution=560,
        patch_size=14,
        num_windows=4,
        positional_encoding_size=37,
        out_feature_indexes=(2, 5, 8, 11),
        dec_layers=3,
    ),
}


def preset(size: str) -> ModelConfig:
    """The row of a size.

    Raises:
        ConfigError: no such size.
    """
    if size not in PRESETS:
        raise ConfigError(f"model: no size {size!r}. Sizes: {', '.join(PRESETS)}.{suggestion(size, list(PRESETS))}")
    return PRESETS[size]


def configure(base: ModelConfig, settings: ModelSettings) -> ModelConfig:
    """A size with the user's changes. Where the stored position grid is the size's own, it follows the resolution.

    Raises:
        ConfigError: the changes do not fit together.
    """
    changes: dict[str, Any] = {**settings.architecture()}
    follows = base.positional_encoding_size == base.resolution // base.patch_size
    if "resolution" in changes and "positional_encoding_size" not in changes and follows:
        changes["positional_encoding_size"] = changes["resolution"] // base.patch_size
    if "num_queries" in changes and "num_select" not in changes:
        changes["num_select"] = min(base.num_select, changes["num_queries"])
    return base.replace(**changes)
