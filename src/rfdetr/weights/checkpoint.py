"""Checkpoint files: the published layout, plus what makes a file of ours complete.

model         weights under their published names
args          settings of the training run, with class_names
model_name    the public class, as RFDETRNano
config        ModelConfig
class_table   ClassTable
run           state of the training run (`checkpoint.pth` and `checkpoint_<N>.pth` only)
"""

import argparse
import pickle
import types
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rfdetr.classes import ClassTable
from rfdetr.config.model import ModelConfig
from rfdetr.errors import ConfigError, WeightsError
from rfdetr.files import write_atomically
from rfdetr.version import __version__
from rfdetr.weights.names import from_published, to_published


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds. Weights are under our names; config, classes and run may be missing from files of others."""

    weights: dict[str, Tensor]
    config: ModelConfig | None = None
    classes: ClassTable | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    run: Mapping[str, Any] | None = None


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write the file whole or not at all."""
    if checkpoint.config is None:
        raise ValueError("a checkpoint of ours holds its config")
    classes = checkpoint.classes
    content: dict[str, Any] = {
        "model": {name: tensor.contiguous() for name, tensor in to_published(checkpoint.weights).items()},
        "args": {**checkpoint.settings, "class_names": list(classes.names) if classes else None},
        "model_name": f"RFDETR{checkpoint.config.size.title()}",
        "config": checkpoint.config.plain(),
        "rfdetr_version": __version__,
    }
    if classes is not None:
        content["class_table"] = classes.to_dict()
    if checkpoint.run is not None:
        content["run"] = dict(checkpoint.run)
    write_atomically(path, lambda temporary: torch.save(content, temporary))


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a file without ever running code from it.

    Raises:
        WeightsError: no such file, or not a checkpoint.
    """
    content = _read(path)
    published = content.get("model")
    if not isinstance(published, dict) or not all(isinstance(tensor, Tensor) for tensor in published.values()):
        raise WeightsError(f"{path}: not a checkpoint of RF-DETR: it has no weights under 'model'")
    settings = content.get("args") or {}
    try:
        config = ModelConfig.from_dict(content["config"]) if "config" in content else None
        table = ClassTable.from_dict(content["class_table"]) if "class_table" in content else _named_classes(settings)
    except (ConfigError, LookupError, TypeError, ValueError) as error:
        raise WeightsError(f"{path}: written by another version of this library, or damaged: {error}") from None
    return Checkpoint(
        weights=from_published(published),
        config=config,
        classes=table,
        settings=settings if isinstance(settings, dict) else vars(settings),
        run=content.get("run"),
    )


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise WeightsError(f"{path}: no such file")
    try:
        with torch.serialization.safe_globals([argparse.Namespace, types.SimpleNamespace]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error.strerror}") from None
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path}: not a checkpoint, or one that would run code when read: {_first_line(error)}"
        ) from None
    except Exception as error:  # a damaged file can trip torch's reader anywhere
        raise WeightsError(f"{path}: damaged or not a checkpoint: {_first_line(error)}") from None
    if not isinstance(content, dict):
        raise WeightsError(f"{path}: not a checkpoint: it holds a {type(content).__name__}")
    return content


def _first_line(error: Exception) -> str:
    return str(error).split("\n", 1)[0]


def _named_classes(settings: Any) -> ClassTable | None:
    """The classes of a file that only lists names: ids are their positions."""
    names = settings.get("class_names") if isinstance(settings, dict) else getattr(settings, "class_names", None)
    if isinstance(names, str):
        names = [names]
    return ClassTable.from_categories(enumerate(map(str, names))) if names else None
