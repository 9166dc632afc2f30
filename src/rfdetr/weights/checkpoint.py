"""Checkpoint files: the published layout, plus what makes a file of ours complete.

model           weights under their published names
args            settings of the training run and of the model, with class_names
model_name      the public class, as RFDETRNano
model_config    the architecture, in the published form
config          ModelConfig
class_table     ClassTable
rfdetr_version  of the package that wrote it
run             state of the training run (`checkpoint.pth` and `checkpoint_<N>.pth` only)

A `.safetensors` file holds the same: the weights as its tensors, the rest as JSON in its metadata.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from rfdetr.classes import ClassTable
from rfdetr.coco_names import COCO
from rfdetr.config.model import ModelConfig
from rfdetr.config.presets import class_name
from rfdetr.console import warn
from rfdetr.errors import ConfigError, WeightsError
from rfdetr.files import write_atomically
from rfdetr.version import __version__
from rfdetr.weights.architecture import SIZE_OF_CLASS, identify, known_settings, shape_facts, traits
from rfdetr.weights.layouts import class_names_of, published_weights, settings_of
from rfdetr.weights.names import from_published, to_published
from rfdetr.weights.published_config import is_plain, to_published_config
from rfdetr.weights.reading import read_file

SUFFIXES = (".pth", ".pt", ".ckpt", ".safetensors")
# Logits of the published COCO weights; their class ids are COCO's ids, 1 to 90.
COCO_LOGITS = 91


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds. Weights are under our names; the rest may be missing from files of others."""

    weights: dict[str, Tensor]
    config: ModelConfig | None = None
    """None: the file does not say which size it is, and several are like it."""
    classes: ClassTable | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    run: Mapping[str, Any] | None = None
    known: Mapping[str, Any] = field(default_factory=dict)
    """Settings of ModelConfig that are certain, whichever size it is."""
    is_certain: bool = True
    """Whether the file says which size it is. Else it is guessed from names and shapes."""


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write the file whole or not at all.

    Raises:
        OSError: it could not be written (disk full, no permission).
    """
    if checkpoint.config is None:
        raise ValueError("a checkpoint of ours holds its config")
    classes, model_config = checkpoint.classes, to_published_config(checkpoint.config)
    facts: dict[str, Any] = {
        "args": {**checkpoint.settings, **model_config, "class_names": list(classes.names) if classes else None},
        "model_name": class_name(checkpoint.config.size),
        "model_config": model_config,
        "config": checkpoint.config.plain(),
        "rfdetr_version": __version__,
    }
    if classes is not None:
        facts["class_table"] = classes.to_dict()
    weights = {name: tensor.cpu().contiguous() for name, tensor in to_published(checkpoint.weights).items()}
    if path.suffix == ".safetensors":
        _save_safetensors(path, weights, facts)
        return
    if checkpoint.run is not None:
        facts["run"] = dict(checkpoint.run)
    _write(path, lambda temporary: _save_torch(temporary, {"model": weights, **facts}))


def _save_torch(path: Path, content: Mapping[str, Any]) -> None:
    with path.open("wb") as file:  # which knows why it cannot be written to, as torch's own does not
        torch.save(content, file)


def _write(path: Path, write: Callable[[Path], None]) -> None:
    try:
        write_atomically(path, write)
    except (SafetensorError, RuntimeError) as error:  # what the libraries make of a full disk
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise OSError(str(error).split("\n", 1)[0]) from error


def _save_safetensors(path: Path, weights: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    metadata = {name: value if isinstance(value, str) else json.dumps(value) for name, value in facts.items()}
    # The format wants memory of its own for every tensor.
    alone = {name: tensor.clone() for name, tensor in weights.items()}
    _write(path, lambda temporary: save_file(alone, temporary, {"format": "pt", **metadata}))


def load_checkpoint(path: Path, trust: bool = False) -> Checkpoint:
    """Read a file of any layout without running code from it, unless it is trusted to.

    Raises:
        WeightsError: no such file, not a checkpoint, damaged, or of a model that this library does not have.
    """
    content = read_file(path, trust)
    try:
        return _checkpoint(content, path)
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from None
    except (ConfigError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise WeightsError(f"{path}: damaged: {error}") from None


def _checkpoint(content: Mapping[str, Any], path: Path) -> Checkpoint:
    weights = from_published(published_weights(content, path.stat().st_size))
    settings, run = settings_of(content), content.get("run")
    run = run if isinstance(run, dict) else None
    if "config" in content:
        config, classes = _own_facts(content, weights)
        return Checkpoint(weights, config, classes, settings, run, traits(config))
    model_config = content.get("model_config")
    model_config = model_config if isinstance(model_config, dict) else {}
    known = known_settings(weights, settings, model_config)
    name = content.get("model_name") or model_config.get("model_name")
    size = identify(known, name, (settings.get("pretrain_weights"), path.name), settings)
    classes = _classes(settings, known.get("num_classes", 0))
    return Checkpoint(weights, size, classes, settings, run, known, is_certain=name in SIZE_OF_CLASS)


def _own_facts(content: Mapping[str, Any], weights: Mapping[str, Tensor]) -> tuple[ModelConfig, ClassTable | None]:
    """Raises:
    WeightsError: config or class table are not of this version, or contradict the weights.
    """
    stated, table = content["config"], content.get("class_table")
    try:
        config = ModelConfig.from_dict({name: value for name, value in stated.items() if is_plain(value)})
        classes = None if table is None else _own_table(table)
    except (ConfigError, AttributeError, LookupError, TypeError, ValueError) as error:
        message = f"written by another version of this library, or damaged: {error}"
        raise WeightsError(message) from None
    own = traits(config)
    wrong = [name for name, value in shape_facts(weights).items() if value != own[name]]
    if wrong or (classes is not None and max(classes.class_ids, default=0) > config.num_classes):
        raise WeightsError(f"damaged: its weights are not of its {', '.join(wrong) or 'class_table'}")
    return config, classes


def _own_table(table: Mapping[str, Any]) -> ClassTable:
    """Raises:
    ValueError: its rows are not (whole number, name, whole number).
    """
    classes = ClassTable.from_dict(table)
    for row in zip(classes.category_ids, classes.names, classes.class_ids, strict=True):
        if tuple(map(type, row)) != (int, str, int) or row[2] < 0:
            raise ValueError("class_table: not (category id, name, class id)")
    return classes


def _classes(settings: Mapping[str, Any], num_classes: int) -> ClassTable | None:
    """Of a file of others, which lists names at most: ids are their positions, but for COCO's published weights."""
    names = class_names_of(settings)
    if num_classes == COCO_LOGITS - 1 and names in ([], list(COCO.names)):
        return COCO
    if len(names) > num_classes + 1:
        warn(f"the weights have {num_classes} classes, but their file names {len(names)}: the names are left out")
        return None
    return ClassTable.from_categories(enumerate(names)) if names else None
