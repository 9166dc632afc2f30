"""The published sizes as rows of one table (facts: RF-DETR, arXiv:2511.09554, and its released configurations).

Detection XLarge and 2XLarge are left out: their weights are under another licence, their details unconfirmed.
"""

from typing import Any

from rfdetr.config.base import suggestion
from rfdetr.config.model import ModelConfig, ModelSettings
from rfdetr.errors import ConfigError


def _detection(size: str, resolution: int, dec_layers: int) -> ModelConfig:
    grid = resolution // 16
    return ModelConfig(size=size, resolution=resolution, positional_encoding_size=grid, dec_layers=dec_layers)


def _segmentation(size: str, resolution: int, dec_layers: int, num_queries: int, num_windows: int = 2) -> ModelConfig:
    return ModelConfig(
        size=size,
        resolution=resolution,
        patch_size=12,
        num_windows=num_windows,
        positional_encoding_size=resolution // 12,
        dec_layers=dec_layers,
        num_queries=num_queries,
        num_select=num_queries,
        segmentation_head=True,
    )


# Deprecated upstream, kept because people hold its weights. Its DINOv2 grid (37) is not its own (40).
_BASE = ModelConfig(
    size="base",
    resolution=560,
    patch_size=14,
    num_windows=4,
    positional_encoding_size=37,
    out_feature_indexes=(2, 5, 8, 11),
    dec_layers=3,
)
# Deprecated too; today's Large is faster and more accurate.
_LARGE_DEPRECATED = _BASE.replace(
    size="large-deprecated",
    encoder_width=768,
    encoder_heads=12,
    projector_scale=("P3", "P5"),
    hidden_dim=384,
    sa_nheads=12,
    ca_nheads=24,
    dec_n_points=4,
)

_ROWS = (
    _detection("nano", 384, dec_layers=2),
    _detection("small", 512, dec_layers=3),
    _detection("medium", 576, dec_layers=4),
    _detection("large", 704, dec_layers=4),
    _BASE,
    _LARGE_DEPRECATED,
    _segmentation("seg-nano", 312, dec_layers=4, num_queries=100, num_windows=1),
    _segmentation("seg-small", 384, dec_layers=4, num_queries=100),
    _segmentation("seg-medium", 432, dec_layers=5, num_queries=200),
    _segmentation("seg-large", 504, dec_layers=5, num_queries=200),
    _segmentation("seg-xlarge", 624, dec_layers=6, num_queries=300),
    _segmentation("seg-2xlarge", 768, dec_layers=6, num_queries=300),
    # Deprecated: the first segmentation weights.
    _segmentation("seg-preview", 432, dec_layers=4, num_queries=200),
)
PRESETS = {row.size: row for row in _ROWS}


def class_name(size: str) -> str:
    """The public class of a size: `RFDETRSeg2XLarge` of `seg-2xlarge`."""
    return "RFDETR" + "".join(word[:1].upper() + word[1:] for word in size.replace("xlarge", "XLarge").split("-"))


def preset(size: str) -> ModelConfig:
    """The row of a size.

    Raises:
        ConfigError: no such size.
    """
    if size not in PRESETS:
        raise ConfigError(f"model: {unknown_size(size)}")
    return PRESETS[size]


def unknown_size(name: str) -> str:
    return f"no size {name!r}. Sizes: {', '.join(PRESETS)}.{suggestion(name, list(PRESETS))}"


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
