"""Which size a checkpoint is of, and with which changes: from what it says, and from the shapes of its weights."""

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from rfdetr.config.model import ModelConfig
from rfdetr.config.presets import PRESETS, class_name
from rfdetr.errors import WeightsError
from rfdetr.weights.layouts import KEYPOINTS
from rfdetr.weights.published_config import from_published_config, is_plain

# Parts of file names, the more telling first, and the sizes they may mean (none: not of this library).
NAME_PARTS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("seg-2xlarge", ("seg-2xlarge",)),
    ("seg-xxlarge", ("seg-2xlarge",)),
    *((f"seg-{size}", (f"seg-{size}",)) for size in ("xlarge", "large", "medium", "small", "nano", "preview")),
    ("xlarge", ()),
    ("large", ("large", "large-deprecated")),
    *((size, (size,)) for size in ("medium", "small", "nano", "base")),
)
_OFFSETS = "transformer.decoder.layers.0.cross_attn.sampling_offsets"
SIZE_OF_CLASS = {class_name(size): size for size in PRESETS}
OTHER_LICENCE = (
    "is of detection XLarge or 2XLarge. Their weights are not under Apache-2.0, and this library leaves them out"
)
# What weights can be fitted to; in anything else file and model must agree.
FITTED = (
    "size",
    "resolution",
    "num_channels",
    "positional_encoding_size",
    "num_queries",
    "num_select",
    "group_detr",
    "num_classes",
)


def traits(config: ModelConfig) -> dict[str, Any]:
    """Everything that weights of the architecture have in common."""
    return {**config.model_dump(), "sampling_points": config.ca_nheads * config.dec_n_points}


def shape_facts(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """What the shapes of weights (under our names) give away of `traits`."""
    return {name: value for name, value in _shown(weights).items() if value or name == "segmentation_head"}


def hidden_facts(weights: Mapping[str, Tensor]) -> list[str]:
    """What `shape_facts` lacks, where weights are not those of a whole detector."""
    return [name for name in _shown(weights) if name not in shape_facts(weights)]


def _shown(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """0 or empty stands for what the shapes do not show."""
    shapes = {name: tuple(tensor.shape) for name, tensor in weights.items()}

    def side(name: str, axis: int) -> int:
        return (*shapes.get(name, ()), 0, 0, 0, 0)[axis]

    groups = _count("transformer.enc_output", shapes)
    levels = _count("backbone.projector.stages", shapes)
    positions = side("backbone.vit.embeddings.position_embeddings", 1)
    return {
        "num_channels": side("backbone.vit.embeddings.projection.weight", 1),
        "patch_size": side("backbone.vit.embeddings.projection.weight", 3),
        "positional_encoding_size": math.isqrt(max(positions - 1, 0)),
        "encoder_width": side("backbone.vit.embeddings.projection.weight", 0),
        "encoder_depth": _count("backbone.vit.blocks", shapes),
        "projector_scale": tuple(_scale(level, shapes) for level in range(levels)),
        "hidden_dim": side("class_embed.weight", 1),
        "dec_layers": _count("transformer.decoder.layers", shapes),
        "sampling_points": side(f"{_OFFSETS}.bias", 0) // 2 // max(levels, 1),
        "num_queries": side("query_feat.weight", 0) // max(groups, 1),
        "group_detr": groups,
        "num_classes": max(side("class_embed.bias", 0) - 1, 0),
        "segmentation_head": any(name.startswith("segmentation_head.") for name in shapes),
    }


def _count(stem: str, names: Iterable[str]) -> int:
    """How many modules are numbered behind the stem."""
    pattern = re.compile(re.escape(stem) + r"\.(\d+)\.")
    return len({match[1] for name in names if (match := pattern.match(name))})


def _scale(level: int, names: Iterable[str]) -> str:
    first = f"backbone.projector.stages_sampling.{level}.0.0."
    if f"{first}conv.weight" in names:
        return "P5"
    return "P3" if f"{first}weight" in names else "P4"


def known_settings(
    weights: Mapping[str, Tensor], settings: Mapping[str, Any], model_config: Mapping[str, Any]
) -> dict[str, Any]:
    """What is certain of a file's architecture: what its weights show, and what its `model_config` says beside that.

    Raises:
        WeightsError: the file contradicts itself, or needs what this library does not have.
    """
    if any(stated.get("use_grouppose_keypoints") is True for stated in (settings, model_config)):
        raise WeightsError(KEYPOINTS)
    facts, stated = shape_facts(weights), from_published_config(model_config)
    checked = {name: settings[name] for name in ("patch_size", "segmentation_head") if is_plain(settings.get(name))}
    told = {**checked, **stated}
    for name, value in told.items():
        if name not in FITTED and facts.get(name, value) != value:
            raise WeightsError(f"contradicts itself: it says {name}={value}, its weights are of {name}={facts[name]}")
    return {**stated, **facts}


def identify(
    known: Mapping[str, Any], model_name: object, names: Iterable[object], settings: Mapping[str, Any]
) -> ModelConfig | None:
    """The architecture of a file, as a changed size; None where several sizes are like it.

    Args:
        known: what is certain of it.
        model_name: the public class it names.
        names: what its weights, or those it was trained from, were called.
        settings: of the run that made it.

    Raises:
        WeightsError: it is a model that this library does not have.
    """
    if isinstance(model_name, str) and "keypoint" in model_name.lower():
        raise WeightsError(KEYPOINTS)
    size = SIZE_OF_CLASS.get(model_name) if isinstance(model_name, str) else None
    size = size or _size_by_name(known, [name for name in names if isinstance(name, str)]) or _size_by_shape(known)
    if size is not None:
        return as_size(PRESETS[size], known, settings)
    if model_name in ("RFDETRXLarge", "RFDETR2XLarge") or known.get("patch_size") == 20:
        raise WeightsError(OTHER_LICENCE)
    return None


def _size_by_name(known: Mapping[str, Any], names: Iterable[str]) -> str | None:
    for name in names:
        bare = name.replace("\\", "/").rpartition("/")[2].lower()
        sizes = next((sizes for part, sizes in NAME_PARTS if part in bare), ())
        for size in sizes:
            if not differences(known, PRESETS[size]):
                return size
    return None


def _size_by_shape(known: Mapping[str, Any]) -> str | None:
    alike = [size for size, preset in PRESETS.items() if not differences(known, preset)]
    if len(alike) > 1:
        # Medium and Large, for one, differ in nothing but their resolution.
        grid = known.get("positional_encoding_size")
        alike = [size for size in alike if PRESETS[size].positional_encoding_size == grid]
    if len(alike) > 1:
        alike = [size for size in alike if PRESETS[size].num_queries == known.get("num_queries")]
    return alike[0] if len(alike) == 1 else None


def as_size(preset: ModelConfig, known: Mapping[str, Any], settings: Mapping[str, Any]) -> ModelConfig:
    """The architecture of a file that is of this size, maybe changed."""
    stated = {name: value for name, value in known.items() if name in ModelConfig.model_fields}
    changes = {"resolution": _resolution(preset, known, settings), **stated}
    if "num_select" not in known and "num_queries" in known:
        changes["num_select"] = min(preset.num_select, known["num_queries"])
    return preset.replace(**changes)


def _resolution(preset: ModelConfig, known: Mapping[str, Any], settings: Mapping[str, Any]) -> int:
    """Of a file that does not say it: where the grid of positions follows the resolution, it tells."""
    follows = preset.positional_encoding_size == preset.resolution // preset.patch_size
    by_grid = known.get("positional_encoding_size", 0) * preset.patch_size if follows else 0
    for side in (by_grid, settings.get("resolution")):
        if isinstance(side, int) and side > 0 and side % preset.block_size == 0:
            return side
    return preset.resolution


def differences(known: Mapping[str, Any], wanted: ModelConfig) -> list[str]:
    """What weights cannot be fitted to, one line each."""
    own = traits(wanted)
    return [
        f"{name}: {value} in the file, {own[name]} in the model"
        for name, value in known.items()
        if name not in FITTED and value != own[name]
    ]
