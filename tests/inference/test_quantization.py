from typing import Any

import jaxtyping
import numpy as np
import pytest
import torch
from tests.tiny import TINY

from rfdetr.config.commands import OptimizeConfig
from rfdetr.devices import processor_has
from rfdetr.errors import ConfigError
from rfdetr.inference.optimized import VNNI, OptimizedDetector
from rfdetr.inference.quantization import quantize_layers
from rfdetr.models.detector import Detector

openvino: Any = pytest.importorskip("openvino")
operations: Any = pytest.importorskip("openvino.opset13")
WIDE = TINY.replace(encoder_width=384, encoder_heads=6)
"""Its layers of 384 x 1536 are worth it."""
needs_vnni = pytest.mark.skipif(not processor_has(*VNNI), reason="needs a processor with VNNI")


@pytest.fixture(autouse=True)
def _unchecked_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a trace sizes are tensors, too."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


def one_layer(weights: np.ndarray[Any, Any], transpose_b: bool) -> Any:
    inputs = operations.parameter([1, weights.shape[1 if transpose_b else 0]], np.float32)
    return openvino.Model([operations.matmul(inputs, operations.constant(weights), False, transpose_b)], [inputs])


def weights_in(program: Any) -> np.ndarray[Any, Any]:
    """What the layer of a program multiplies by: its outputs for the unit vectors."""
    compiled = openvino.Core().compile_model(program, "CPU", {"INFERENCE_PRECISION_HINT": openvino.Type.f32})
    units = np.eye(program.input(0).shape[1], dtype=np.float32)
    return np.concatenate([compiled([unit[None]])[0] for unit in units])


@pytest.mark.parametrize("transpose_b", [True, False], ids=["outputs first", "inputs first"])
def test_a_weight_is_rounded_to_the_127th_of_the_largest_of_its_output(transpose_b: bool) -> None:
    scales = np.geomspace(1e-3, 1e3, 512, dtype=np.float32)
    weights = np.random.default_rng(0).uniform(-1, 1, (256, 512)).astype(np.float32) * scales
    weights[:, 7] = 0
    program = one_layer(np.ascontiguousarray(weights.T) if transpose_b else weights, transpose_b)
    assert quantize_layers(program) == 1
    steps = np.abs(weights).max(0) / 127
    off = np.abs(weights_in(program) - weights) / np.where(steps > 0, steps, 1)
    assert 0.4 < off.max() < 0.501
    assert (off[:, 7] == 0).all()


@pytest.mark.parametrize(
    "shape", [pytest.param((255, 512), id="small"), pytest.param((2, 256, 512), id="one for each group")]
)
def test_other_products_stay_as_they_are(shape: tuple[int, ...]) -> None:
    inputs = operations.parameter([*shape[:-2], 1, shape[-2]], np.float32)
    weights = operations.constant(np.ones(shape, np.float32))
    assert quantize_layers(openvino.Model([operations.matmul(inputs, weights, False, False)], [inputs])) == 0


@needs_vnni
def test_in_bytes_a_detector_predicts_nearly_what_it_does_in_float32() -> None:
    detector = Detector(WIDE).eval()
    images = torch.randn(8, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = detector(images)["pred_logits"]
    found = {
        precision: OptimizedDetector(detector, OptimizeConfig.model_validate({"precision": precision}))(images)
        for precision in ("bf16", "int8", "int8-bf16")
    }
    # Rounding may choose other tokens for a few queries.
    off = {name: (outputs["pred_logits"] - expected).abs().median() for name, outputs in found.items()}
    assert 0 < off["int8"] < 2 * off["bf16"]
    assert off["bf16"] < off["int8-bf16"] < 2.5 * off["bf16"]


@needs_vnni
def test_an_outlier_among_the_inputs_is_no_matter_to_other_groups() -> None:
    """With one scale for all of them, the 256 others would be rounded to multiples of 8."""
    weights = np.zeros((512, 384), np.float32)
    weights[:, 128:] = np.random.default_rng(0).uniform(-1, 1, (512, 256))
    program = one_layer(weights, True)
    assert quantize_layers(program) == 1
    loaded = {"INFERENCE_PRECISION_HINT": openvino.Type.f32, "DYNAMIC_QUANTIZATION_GROUP_SIZE": 128}
    compiled = openvino.Core().compile_model(program, "CPU", loaded)
    inputs = np.random.default_rng(1).uniform(-1, 1, (1, 384)).astype(np.float32)
    inputs[0, 5] = 1000
    assert np.abs(compiled([inputs])[0] - inputs @ weights.T).max() < 0.2


@pytest.mark.parametrize("precision", ["int8", "int8-bf16"])
def test_a_processor_without_products_of_bytes_is_told_of(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    with pytest.raises(ConfigError, match=f"optimize: precision='{precision}' needs a processor with VNNI, which"):
        OptimizedDetector(Detector(TINY), OptimizeConfig.model_validate({"precision": precision}))


@pytest.mark.parametrize(
    ("instructions", "expected"),
    [
        ((), "32"),
        (("avx512_bf16",), "bf16"),
        (("avx_vnni",), "int8"),
        (("avx512_vnni", "avx512_bf16"), "int8-bf16"),
        (("avx512_vnni", "avx512_bf16", "amx_tile", "amx_bf16"), "bf16"),
    ],
    ids=["none", "bfloat16", "bytes", "both", "AMX"],
)
def test_without_a_format_asked_for_it_is_the_fastest_of_the_processor(
    instructions: tuple[str, ...], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: dict.fromkeys(instructions, True))
    assert OptimizedDetector(Detector(TINY), OptimizeConfig()).precision == expected
