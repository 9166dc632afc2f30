"""Fully connected layers in 8 bits: weights once, inputs as they come (Yao et al., "ZeroQuant", 2022, section 4.1)."""

from collections.abc import Iterable
from importlib import import_module
from typing import Any, cast

import numpy as np
import torch

from rfdetr.models.detector import Detector
from rfdetr.models.dinov2 import Block

GROUP = 128
"""Inputs that share a scale. The fewer, the less an outlier costs its neighbours, and the slower."""
LEAST_WEIGHTS = 2**17
"""Smaller layers, as those of boxes and classes are, take no time to speak of, and stay exact."""
PIXEL_LAYER = "vit.embeddings/"
"""Part of the name of the layer that reads pixels, which are not rounded to bytes."""


@torch.no_grad()
def fold_norms(detector: Detector) -> None:
    """Move the shift of the ViT's norms, and what scales a channel up, into the layer that reads it: the same results.

    So no channel that a norm makes large coarsens the others of its group, or its own weights; one that it makes small,
    as it does with outliers, stays small ("gamma migration": Wei et al., "Outlier Suppression", 2022, section 4.1).
    """
    for block in cast("Iterable[Block]", detector.backbone.vit.blocks):
        for norm, layer in ((block.norm1, block.attn.qkv), (block.norm2, block.mlp.fc1)):
            layer.bias.copy_(layer.bias.double() + layer.weight.double() @ norm.bias.double())
            norm.bias.zero_()
            sizes = norm.weight.abs()
            moved = (sizes / sizes.median().clamp(min=torch.finfo(sizes.dtype).tiny)).clamp(min=1)
            layer.weight.mul_(moved)
            norm.weight.div_(moved)


def quantize_layers(program: Any) -> None:
    """Keep the weights of the large fully connected layers of a program of OpenVINO as bytes, in place.

    Each output has a scale of its own, that of its largest weight. Loaded with `DYNAMIC_QUANTIZATION_GROUP_SIZE`
    and on a processor with VNNI, such layers multiply bytes. Numbers that are not finite become some that are.
    """
    operations = import_module("openvino.opset13")
    for layer in [
        node for node in program.get_ordered_ops() if node.get_type_name() == "MatMul" and _becomes_bytes(node)
    ]:
        weights = layer.input_value(1).get_node().data
        largest = np.abs(weights).max(axis=1 if layer.get_attributes()["transpose_b"] else 0, keepdims=True)
        scales = np.maximum(largest / 127, np.finfo(np.float32).tiny)
        codes = operations.constant(np.round(weights / scales).astype(np.int8))
        restored = operations.multiply(operations.convert(codes, "f32"), operations.constant(scales))
        layer.input(1).replace_source_output(restored.output(0))


def _becomes_bytes(product: Any) -> bool:
    weights = product.input_value(1).get_node()
    if weights.get_type_name() != "Constant" or PIXEL_LAYER in product.get_friendly_name():
        return False
    shape = weights.get_output_shape(0)
    return len(shape) == 2 and int(np.prod(shape)) >= LEAST_WEIGHTS
