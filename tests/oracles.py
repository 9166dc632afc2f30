"""The numeric oracles: weights that depend only on key name and shape, inputs by seed, and the recorded outputs."""

import json
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from jaxtyping import UInt8
from safetensors.torch import load_file
from torch import Tensor

from rfdetr.config.model import ModelConfig
from rfdetr.config.presets import preset
from rfdetr.models.detector import Detector
from rfdetr.types import Target
from rfdetr.weights.names import from_published, to_published

COMPACT = Path(__file__).parent / "reference" / "data"
"""A few of the oracles, so that the suite is whole without the folder ../shared."""
SHARED = Path(__file__).resolve().parents[2] / "shared" / "spec"


def oracle_file(name: str) -> Path:
    """A file of the oracles, from ../shared where it is there, else from the compact set; where in neither, skip."""
    for folder in (SHARED, COMPACT):
        if (folder / name).exists():
            return folder / name
    pytest.skip(f"needs ../shared/spec/{name}")


def read_json(name: str) -> Any:
    return json.loads(oracle_file(name).read_text())


def read_tensors(name: str) -> dict[str, Tensor]:
    return load_file(oracle_file(name))


def weight(key: str, shape: list[int]) -> Tensor:
    """The value of one published key."""
    scale, offset = _scale_and_offset(key, shape)
    values = np.random.RandomState(zlib.crc32(key.encode())).standard_normal(shape).astype(np.float32)
    return torch.from_numpy(values * np.float32(scale) + np.float32(offset))


def _scale_and_offset(key: str, shape: list[int]) -> tuple[float, float]:
    fan = math.prod(shape[1:])
    rules: list[tuple[bool, float, float]] = [
        (key.endswith("lambda1"), 0.1, 0.5),
        (key.endswith("position_embeddings"), 0.2, 0),
        (key.endswith(("cls_token", "register_tokens")), 0.5, 0),
        (key.endswith("mask_token"), 0.02, 0),
        (key.endswith("refpoint_embed.weight"), 0.1, 0),
        (key.endswith("query_feat.weight"), 1.0, 0),
        ("class_embed" in key and key.endswith("bias"), 0.5, -4),
        (key.endswith("sampling_offsets.bias"), 1.0, 0),
        (key.endswith("bias"), 0.02, 0),
        (len(shape) == 1, 0.1, 1),
        (key.endswith("sampling_offsets.weight"), 0.5 / math.sqrt(fan), 0),
        ("bbox_embed" in key and "layers.2.weight" in key, 0.3 / math.sqrt(fan), 0),
        (key.endswith("query_features_proj.weight"), 0.2 / math.sqrt(fan), 0),
    ]
    return next(((scale, offset) for fits, scale, offset in rules if fits), (1 / math.sqrt(fan), 0))


def oracle_names() -> list[str]:
    """All architectures with oracles, here or in ../shared: `seg_nano`."""
    return sorted({meta.parent.name for folder in (SHARED, COMPACT) for meta in folder.glob("oracles/*/meta.json")})


def oracle_cases(kind: str) -> list[tuple[str, str]]:
    """Architecture and case of all records of a kind (`eval` or `train`): `("seg_nano", "eval_pad")`."""
    return [
        (name, case)
        for name in oracle_names()
        for case in sorted(
            {file.stem for folder in (SHARED, COMPACT) for file in folder.glob(f"oracles/{name}/{kind}*.safetensors")}
        )
    ]


def architecture(name: str) -> ModelConfig:
    """The architecture of a directory of oracles."""
    return preset(name.replace("_", "-"))


def oracle_detector(name: str) -> Detector:
    """The detector of a published architecture with the oracle weights."""
    detector = Detector(architecture(name))
    keys = {key: list(tensor.shape) for key, tensor in to_published(detector.state_dict()).items()}
    detector.load_state_dict(from_published({key: weight(key, shape) for key, shape in keys.items()}))
    return detector


def image(seed: int, height: int, width: int) -> Tensor:
    return torch.from_numpy(np.random.RandomState(seed).standard_normal((3, height, width)).astype(np.float32))


def picture(seed: int, height: int, width: int) -> UInt8[np.ndarray, "height width 3"]:
    """Noisy squares."""
    random = np.random.RandomState(seed)
    colors = random.randint(0, 256, (height // 10 + 2, width // 10 + 2, 3)).astype(np.uint8)
    squares = np.kron(colors, np.ones((10, 10, 1), np.uint8))[:height, :width].astype(int)
    return (squares + random.randint(-20, 21, (height, width, 3))).clip(0, 255).astype(np.uint8)


def batch(meta: dict[str, Any], case: str) -> tuple[Tensor, Tensor | None]:
    """Images of a case and their padding mask; None where all have the same size."""
    images = [image(seed, *size) for seed, size in zip(meta[case]["image_seeds"], meta[case]["sizes"], strict=True)]
    if "padded_hw" not in meta[case]:
        return torch.stack(images), None
    height, width = meta[case]["padded_hw"]
    padded = torch.zeros(len(images), 3, height, width)
    mask = torch.ones(len(images), height, width, dtype=torch.bool)
    for index, each in enumerate(images):
        padded[index, :, : each.shape[1], : each.shape[2]] = each
        mask[index, : each.shape[1], : each.shape[2]] = False
    return padded, mask


def targets(seed: int, counts: list[int], mask_side: int | None = None) -> list[Target]:
    """Random objects; with the side of the input, their masks are the ellipses in their boxes."""
    random = np.random.RandomState(seed)
    found: list[Target] = []
    for index, count in enumerate(counts):
        center, size = random.uniform(0.2, 0.8, (count, 2)), random.uniform(0.1, 0.4, (count, 2))
        labels = torch.from_numpy(random.randint(1, 91, (count,)).astype(np.int64))
        boxes = torch.from_numpy(np.concatenate([center, size], axis=1).astype(np.float32))
        target: Target = {"boxes": boxes, "labels": labels, "orig_size": torch.tensor([1, 1]), "image_id": index}
        if mask_side:
            target["masks"] = ellipses(boxes, mask_side)
        found.append(target)
    return found


def ellipses(boxes: Tensor, side: int) -> Tensor:
    cx, cy, w, h = boxes.double()[:, :, None, None].unbind(1)
    cells = (torch.arange(side, dtype=torch.float64) + 0.5) / side
    inside: Tensor = ((cells - cx) / (w / 2)) ** 2 + ((cells[:, None] - cy) / (h / 2)) ** 2 <= 1
    return inside


def stats(values: Tensor) -> Tensor:
    v = values.double()
    return torch.stack([v.sum(), v.mean(), v.std(correction=0), v.abs().sum(), v.min(), v.max()])
