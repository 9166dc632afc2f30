from collections.abc import Iterable
from copy import deepcopy
from typing import Any, cast

import jaxtyping
import numpy as np
import pytest
import torch
from tests.tiny import TINY
from torch import Tensor

from rfdetr.config.commands import OptimizeConfig
from rfdetr.devices import multiplies_bfloat16, processor_has
from rfdetr.errors import ConfigError
from rfdetr.inference.optimized import VNNI, OptimizedDetector
from rfdetr.inference.programs import kept_program
from rfdetr.inference.quantization import GROUP, PIXEL_LAYER, fold_norms, quantize_layers
from rfdetr.models.detector import Detector
from rfdetr.models.dinov2 import Block

openvino: Any = pytest.importorskip("openvino")
operations: Any = pytest.importorskip("openvino.opset13")
WIDE = TINY.replace(encoder_width=384, encoder_heads=6)
"""Its layers of 384 x 1536 are worth it."""
needs_vnni = pytest.mark.skipif(not processor_has(*VNNI), reason="needs a processor with VNNI")


@pytest.fixture(autouse=True)
def _unchecked_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a trace sizes are tensors, too."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


def one_layer(weights: np.ndarray[Any, Any], transpose_b: bool = True) -> Any:
    inputs = operations.parameter([1, weights.shape[1 if transpose_b else 0]], np.float32)
    return openvino.Model([operations.matmul(inputs, operations.constant(weights), False, transpose_b)], [inputs])


def loaded(program: Any, group: int) -> Any:
    properties = {"INFERENCE_PRECISION_HINT": openvino.Type.f32, "DYNAMIC_QUANTIZATION_GROUP_SIZE": group}
    return openvino.Core().compile_model(program, "CPU", properties)


def weights_in(program: Any) -> np.ndarray[Any, Any]:
    """What the layer of a program multiplies by: its outputs for the unit vectors."""
    compiled = loaded(program, 0)
    units = np.eye(program.input(0).shape[1], dtype=np.float32)
    return np.concatenate([compiled([unit[None]])[0] for unit in units])


def is_in_bytes(program: Any) -> bool:
    types = [node.get_element_type() for node in program.get_ordered_ops() if node.get_type_name() == "Constant"]
    return openvino.Type.i8 in types


def run(detector: Detector, precision: str, images: Tensor) -> Tensor:
    """Its logits."""
    settings = OptimizeConfig.model_validate({"precision": precision})
    return OptimizedDetector(detector, settings)(images)["pred_logits"]


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(8, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("transpose_b", [True, False], ids=["outputs first", "inputs first"])
def test_a_weight_is_rounded_to_the_127th_of_the_largest_of_its_output(transpose_b: bool) -> None:
    scales = np.geomspace(1e-3, 1e3, 512, dtype=np.float32)
    weights = np.random.default_rng(0).uniform(-1, 1, (256, 512)).astype(np.float32) * scales
    weights[:, 7] = 0
    program = one_layer(np.ascontiguousarray(weights.T) if transpose_b else weights, transpose_b)
    quantize_layers(program)
    assert is_in_bytes(program)
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
    program = openvino.Model([operations.matmul(inputs, weights, False, False)], [inputs])
    quantize_layers(program)
    assert not is_in_bytes(program)


def products(program: Any) -> list[Any]:
    return [node for node in program.get_ordered_ops() if node.get_type_name() == "MatMul"]


def test_the_layer_that_reads_pixels_stays_as_it_is() -> None:
    """It is known by its name, however large it is."""
    of_detector = products(openvino.Core().read_model(kept_program(Detector(TINY).eval(), 1)))
    (name,) = (node.get_friendly_name() for node in of_detector if PIXEL_LAYER in node.get_friendly_name())
    program = one_layer(np.ones((512, 512), np.float32))
    products(program)[0].set_friendly_name(name)
    quantize_layers(program)
    assert not is_in_bytes(program)


@needs_vnni
@pytest.mark.parametrize("name", ["backbone.vit.blocks.1.mlp.fc1.weight", "backbone.vit.blocks.1.norm1.bias"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused(name: str, value: float) -> None:
    detector = Detector(TINY)
    with torch.no_grad():
        detector.get_parameter(name).view(-1)[3] = value
    with pytest.raises(ConfigError, match=f"optimize: the model has weights that are not finite: {name}"):
        OptimizedDetector(detector, OptimizeConfig(precision="int8"))


@needs_vnni
def test_in_bytes_a_detector_predicts_nearly_what_it_does_in_float32(images: Tensor) -> None:
    detector = Detector(WIDE).eval()
    with torch.no_grad():
        expected = detector(images)["pred_logits"]
    # Rounding may choose other tokens for a few queries.
    off = {name: (run(detector, name, images) - expected).abs().median() for name in ("32", "int8", "int8-bf16")}
    assert off["32"] < 1e-5
    assert 1e-3 < off["int8"] < 0.03
    if multiplies_bfloat16():
        assert off["int8"] < off["int8-bf16"] < 0.04


def stretch(detector: Detector, times: float) -> None:
    """The norms scale some channels up, and the weights of the layers that read them make up for it."""
    with torch.no_grad():
        for block in cast("Iterable[Block]", detector.backbone.vit.blocks):
            for norm, layer in ((block.norm1, block.attn.qkv), (block.norm2, block.mlp.fc1)):
                norm.bias.normal_(std=0.1, generator=torch.Generator().manual_seed(0))
                layer.bias.sub_(layer.weight @ norm.bias)
                for parameter in (norm.weight, norm.bias):
                    parameter[::100] *= times
                layer.weight[:, ::100] /= times


@needs_vnni
def test_channels_that_a_norm_scales_up_coarsen_no_others(images: Tensor) -> None:
    detector = Detector(WIDE).eval()
    stretched = deepcopy(detector)
    stretch(stretched, 300)
    with torch.no_grad():
        torch.testing.assert_close(stretched(images)["pred_logits"], detector(images)["pred_logits"], rtol=0, atol=1e-3)
    of_both = run(stretched, "int8", images) - run(detector, "int8", images)
    assert of_both.abs().median() < 1e-3


def test_what_a_norm_scales_down_stays_so() -> None:
    """As it does with channels that are large before it."""
    detector = Detector(TINY)
    block = cast("Block", detector.backbone.vit.blocks[0])
    with torch.no_grad():
        block.norm1.weight[:3] = torch.tensor([0.05, 30.0, 0.0])
        block.norm1.bias.fill_(0.5)
    weights = block.attn.qkv.weight.clone()
    fold_norms(detector)
    assert block.norm1.weight[:4].tolist() == pytest.approx([0.05, 1, 0, 1])
    assert block.norm1.bias.abs().max() == 0
    torch.testing.assert_close(block.attn.qkv.weight[:, :4], weights[:, :4] * torch.tensor([1.0, 30, 1, 1]))
    torch.testing.assert_close(block.attn.qkv.bias, 0.5 * weights.sum(1))


@needs_vnni
def test_inputs_are_rounded_to_bytes_with_one_scale_for_each_group() -> None:
    """With one for all of them, those beside the outlier's group would be rounded to multiples of 8."""
    weights = np.random.default_rng(0).integers(-126, 127, (512, 3 * GROUP)).astype(np.float32)
    weights[:, :GROUP] = 0
    weights[:, -1] = 127
    program = one_layer(weights)
    quantize_layers(program)
    assert np.array_equal(weights_in(program), weights.T)
    inputs = np.random.default_rng(1).uniform(-1, 1, (1, 3 * GROUP)).astype(np.float32)
    inputs[0, 5] = 1000
    off = np.abs(loaded(program, GROUP)([inputs])[0] - inputs @ weights.T).max() / 127
    assert 0.01 < off < 0.2


@pytest.mark.parametrize(
    ("precision", "instructions", "lacking"),
    [
        ("int8", ("avx512_bf16",), "VNNI"),
        ("int8-bf16", ("avx512_bf16",), "VNNI"),
        ("int8-bf16", ("avx512_vnni",), "products of bfloat16"),
        ("bf16", ("avx512_vnni",), "products of bfloat16"),
    ],
)
def test_a_processor_without_a_format_is_told_of(
    precision: str, instructions: tuple[str, ...], lacking: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenVINO would compute in another one, or slowly."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: dict.fromkeys(instructions, True), raising=False)
    with pytest.raises(ConfigError, match=f"optimize: precision='{precision}' needs a processor with {lacking}, which"):
        OptimizedDetector(Detector(TINY), OptimizeConfig.model_validate({"precision": precision}))


@pytest.mark.parametrize(
    ("instructions", "expected"),
    [
        ((), "32"),
        (("avx512_bf16",), "bf16"),
        (("avx_vnni",), "32"),
        (("avx512_vnni",), "int8"),
        (("avx512_vnni", "avx512_bf16"), "int8-bf16"),
        (("avx512_vnni", "avx512_bf16", "amx_tile", "amx_bf16"), "bf16"),
    ],
    ids=["none", "bfloat16", "bytes, untried", "bytes", "both", "AMX"],
)
def test_without_a_format_asked_for_it_is_the_fastest_of_the_processor(
    instructions: tuple[str, ...], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: dict.fromkeys(instructions, True), raising=False)
    assert OptimizedDetector(Detector(TINY), OptimizeConfig()).precision == expected


@pytest.mark.skipif(not (processor_has("avx512_vnni") and multiplies_bfloat16()), reason="needs VNNI and bfloat16")
@pytest.mark.parametrize(
    ("precision", "beside", "group"),
    [("32", "f32", None), ("bf16", "bf16", None), ("int8", "f32", GROUP), ("int8-bf16", "bf16", GROUP)],
)
def test_a_format_is_what_openvino_is_told(precision: str, beside: str, group: int | None) -> None:
    compiled = OptimizedDetector(Detector(TINY), OptimizeConfig.model_validate({"precision": precision})).compiled
    assert compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name() == beside
    assert group in (None, compiled.get_property("DYNAMIC_QUANTIZATION_GROUP_SIZE"))
