"""Pretrained DINOv2 weights for the ViT of a model that is otherwise trained from scratch."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from rfdetr.errors import WeightsError
from rfdetr.models.detector import Detector
from rfdetr.weights.layouts import check_tensors
from rfdetr.weights.names import from_published
from rfdetr.weights.reading import read_file
from rfdetr.weights.state_dict import (
    PATCHES,
    POSITIONS,
    UNUSED,
    check_names_and_shapes,
    fit_channels,
    fit_positions,
    leave_out_others,
    left_out,
)

_VIT = "backbone.vit."
# A model for another task (a classifier, say) has its DINOv2 under this name.
_PREFIX = re.compile(r"dinov2(_with_registers)?\.")
_NAMES = {384: "DINOv2 small", 768: "base", 1024: "large", 1536: "giant"}
_LARGEST_PATCH = 64
_PARTS = ("embeddings.", "encoder.", "layernorm.")


def load_encoder(detector: Detector, path: Path) -> list[str]:
    """Load DINOv2 weights in the layout of Hugging Face's Dinov2Model; returns one line per change.

    The patch projection is resized to the detector's patch size, and the position embeddings to its grid.

    Raises:
        WeightsError: there are no such weights, or they are of another ViT (nothing is loaded then).
    """
    try:
        file = _find(path)
        content = read_file(file)
    except WeightsError as error:
        raise WeightsError(f"encoder_weights: {error}") from None
    try:
        weights, report = _fitted(content, file.stat().st_size, detector)
    except (WeightsError, RuntimeError) as error:
        raise WeightsError(f"encoder_weights: {file}: {error}") from None
    detector.load_state_dict(weights, strict=False)
    return report


def _fitted(content: Mapping[str, Any], size: int, detector: Detector) -> tuple[dict[str, Tensor], list[str]]:
    """The weights in the detector's shapes and names, and what was changed."""
    weights, report = _vit_weights(content, size)
    own = {name: tensor for name, tensor in detector.state_dict().items() if name.startswith(_VIT)}
    weights.setdefault(UNUSED, own[UNUSED])  # not in every file
    problem = _obstacle(weights, own)
    if problem:
        raise WeightsError(problem)
    report += fit_channels(weights, own)
    if weights[PATCHES].shape != own[PATCHES].shape:
        old, new = weights[PATCHES].shape[-1], own[PATCHES].shape[-1]
        weights[PATCHES] = resize_patches(weights[PATCHES], new)
        report.append(f"patch projection: {old}x{old} -> {new}x{new}, resized")
    if weights[POSITIONS].shape != own[POSITIONS].shape:
        report.append(fit_positions(weights, own))
    report += leave_out_others(weights, own)
    check_names_and_shapes(weights, own)
    return weights, report


def _find(path: Path) -> Path:
    """The file itself, or the one in a folder as Hugging Face saves it."""
    if not path.is_dir():
        if path.is_file() and path.suffix != ".safetensors":
            raise WeightsError(f"{path}: not a .safetensors file, nor a folder with a model.safetensors")
        return path
    file = path / "model.safetensors"
    if not file.is_file():
        raise WeightsError(f"{path}: no model.safetensors in this folder")
    return file


def _vit_weights(content: Mapping[str, Any], size: int) -> tuple[dict[str, Tensor], list[str]]:
    """The weights of the ViT under our names, and what was left out."""
    found = content.get("model")
    if not isinstance(found, dict) or not all(isinstance(tensor, Tensor) for tensor in found.values()):
        raise WeightsError("not a safetensors file of weights")
    check_tensors(found, size)
    bare = {_PREFIX.sub("", name, count=1) if _PREFIX.match(name) else name: tensor for name, tensor in found.items()}
    registers = bare.pop("embeddings.register_tokens", None)
    report = [] if registers is None else ["register tokens: left out, the model has none"]
    others = [name for name in bare if not name.startswith(_PARTS)]
    if others:
        report.append(left_out(others))
    published = {f"backbone.0.encoder.encoder.{name}": bare[name].float() for name in bare if name not in others}
    return from_published(published), report


def _obstacle(weights: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> str | None:
    """What most often does not fit, in words."""
    if PATCHES not in weights or POSITIONS not in weights:
        return "not DINOv2 weights in the layout of Hugging Face (embeddings.*, encoder.layer.*, layernorm.*)"
    if any(".mlp.weights_in." in name for name in weights):
        return "a DINOv2 with SwiGLU (giant); this model's ViT has none"
    kernel = weights[PATCHES].shape
    if len(kernel) != 4 or kernel[2] != kernel[3] or kernel[2] > _LARGEST_PATCH:
        return f"its patch projection is of shape {list(kernel)}"
    if kernel[0] != len(own[PATCHES]):
        old, new = (f"{width} ({_NAMES.get(width, 'none')})" for width in (kernel[0], len(own[PATCHES])))
        return f"encoder width: {old} in the file, {new} in the model"
    if _depth(weights) != _depth(own):
        return f"encoder depth: {_depth(weights)} blocks in the file, {_depth(own)} in the model"
    return None


def _depth(weights: Mapping[str, Tensor]) -> int:
    return len({name.split(".")[3] for name in weights if name.startswith(f"{_VIT}blocks.")})


def resize_patches(kernel: Float[Tensor, "D C P P"], size: int) -> Float[Tensor, "D C size size"]:
    """A patch projection for patches of another size (FlexiViT, arXiv:2212.08013, section 3.4).

    Resizing a patch bilinearly is a matrix B; the new kernel is pinv(B^T) of the old one. Enlarged patches then get the
    very tokens they had; shrunken ones those that come nearest on average. Resizing the kernel like an image would
    change the size of the tokens with the number of pixels.
    """
    old = kernel.shape[-1]
    pixels = torch.eye(old * old, dtype=torch.float64).view(old * old, 1, old, old)
    resized = F.interpolate(pixels, size=(size, size), mode="bilinear", align_corners=False, antialias=True)
    b_transposed = resized.view(old * old, size * size)
    new: Tensor = kernel.double().flatten(2) @ torch.linalg.pinv(b_transposed).T
    return new.view(*kernel.shape[:2], size, size).to(kernel.dtype)
