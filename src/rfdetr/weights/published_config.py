"""The architecture as published checkpoints state it (`model_config`), and ModelConfig, both ways."""

from collections.abc import Mapping
from typing import Any

from rfdetr.config.model import ModelConfig
from rfdetr.config.presets import class_name
from rfdetr.errors import WeightsError

# Name of the encoder: its width and heads.
ENCODERS = {"dinov2_windowed_small": (384, 6), "dinov2_windowed_base": (768, 12)}
# Switches of the published code that all published sizes agree on; this library knows no other way.
FIXED = {
    "two_stage": True,
    "bbox_reparam": True,
    "lite_refpoint_refine": True,
    "layer_norm": True,
    "mask_downsample_ratio": 4,
    "num_decoder_registers": 0,
    "dual_projector": False,
    "use_grouppose_keypoints": False,
}
_SHARED = [name for name in ModelConfig.model_fields if name != "size" and not name.startswith("encoder_")]


def to_published_config(config: ModelConfig) -> dict[str, Any]:
    """`model_config` of a checkpoint."""
    values = config.plain()
    names = {width: name for name, (width, _) in ENCODERS.items()}
    return {
        "encoder": names.get(config.encoder_width),
        **{name: values[name] for name in _SHARED},
        **FIXED,
        "pretrain_weights": None,
        "model_name": class_name(config.size),
    }


def from_published_config(published: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of ModelConfig that a `model_config` states; what it may hold beside them is left out.

    Raises:
        WeightsError: it asks for something that this library does not have.
    """
    for name, value in FIXED.items():
        if name in published and not (is_plain(published[name]) and published[name] == value):
            raise WeightsError(f"made with {name}={brief(published[name])}; this library knows {name}={value} only")
    known = {name: _as_tuple(published[name]) for name in _SHARED if is_plain(published.get(name))}
    encoder = published.get("encoder")
    if encoder is not None:
        if not isinstance(encoder, str) or encoder not in ENCODERS:
            raise WeightsError(f"its encoder {brief(encoder)} is none of {', '.join(ENCODERS)}")
        known["encoder_width"], known["encoder_heads"] = ENCODERS[encoder]
    return known


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def is_plain(value: Any) -> bool:
    """A number or a word, or a few of them: what a setting can be. A file may hold anything of any size."""
    if isinstance(value, (list, tuple)):
        return len(value) <= 32 and all(isinstance(item, (int, float, str)) for item in value)
    return isinstance(value, (int, float, str))


def brief(value: Any) -> str:
    return repr(value)[:60] if is_plain(value) else f"a {type(value).__name__}"
