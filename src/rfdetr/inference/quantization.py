"""Fully connected layers in 8 bits: weights once, inputs as they come (Yao et al., "ZeroQuant", 2022, section 4.1)."""

from importlib import import_module
from typing import Any

import numpy as np

GROUP = 128
"""Inputs that share a scale. The fewer, the less an outlier costs its neighbours, and the slower."""
LEAST_WEIGHTS = 2**17
"""Smaller layers, as those of boxes and classes are, take no time to speak of, and stay exact."""


def quantize_layers(program: Any) -> int:
    """Keep the weights of the large fully connected layers of a program of OpenVINO as bytes, in place.

    Each output has a scale of its own, that of its largest weight. Loaded with `DYNAMIC_QUANTIZATION_GROUP_SIZE`
    and on a processor with VNNI, such layers multiply bytes.

    Returns:
        How many layers these are.
    """
    operations = import_module("openvino.opset13")
    layers = [node for node in program.get_ordered_ops() if node.get_type_name() == "MatMul" and _is_large(node)]
    for layer in layers:
        weights = layer.input_value(1).get_node().data
        scales = np.abs(weights).max(axis=1 if layer.get_attributes()["transpose_b"] else 0, keepdims=True) / 127
        scales[scales == 0] = 1
        codes = operations.constant(np.round(weights / scales).astype(np.int8))
        restored = operations.multiply(operations.convert(codes, "f32"), operations.constant(scales))
        layer.input(1).replace_source_output(restored.output(0))
    return len(layers)


def _is_large(product: Any) -> bool:
    weights = product.input_value(1).get_node()
    if weights.get_type_name() != "Constant":
        return False
    shape = weights.get_output_shape(0)
    return len(shape) == 2 and int(np.prod(shape)) >= LEAST_WEIGHTS
