from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from tests.as_on_gpu import AsOnGPU
from tests.tiny import TINY, TINY_SEG
from tests.training.tiny import CPU, tiny_config
from torch import Tensor, nn

from rfdetr.classes import ClassTable
from rfdetr.config.commands import OptimizeConfig
from rfdetr.config.model import ModelConfig, ModelSettings
from rfdetr.config.runs import EvaluateConfig
from rfdetr.errors import ConfigError
from rfdetr.inference.mixed_precision import MixedPrecisionDetector
from rfdetr.inference.predictor import Network, predict
from rfdetr.lifecycle import Model, evaluate_model, optimize_model, save_model, train_model
from rfdetr.models.detector import Detector
from rfdetr.types import LayerOutputs
from rfdetr.weights.checkpoint import load_checkpoint

CLASSES = ClassTable.from_categories((index, f"class {index}") for index in range(TINY.num_classes))
PICTURES = [np.random.default_rng(seed).integers(0, 256, (50, 70, 3), dtype=np.uint8) for seed in range(3)]
BF16 = OptimizeConfig(precision="bf16")


def detector_of(config: ModelConfig) -> Detector:
    """One whose scores are about 0.5, where they change most, and whose boxes depend on what it has computed."""
    detector = Detector(config)
    nn.init.zeros_(detector.class_embed.bias)
    last = cast("nn.Linear", detector.bbox_embed.layers[-1])
    nn.init.normal_(last.weight, std=0.1, generator=torch.Generator().manual_seed(0))
    return detector


def outputs_of(network: Network, images: Tensor) -> LayerOutputs:
    with torch.no_grad():
        outputs: LayerOutputs = network(images)
    return outputs


@pytest.mark.parametrize("config", [pytest.param(TINY, id="boxes"), pytest.param(TINY_SEG, id="masks")])
@pytest.mark.parametrize(("precision", "limit"), [("bf16", 0.02), ("fp16", 0.003)])
def test_it_computes_nearly_what_the_detector_does(config: ModelConfig, precision: str, limit: float) -> None:
    detector = detector_of(config).eval()
    mixed = MixedPrecisionDetector(detector, OptimizeConfig.model_validate({"precision": precision}))
    images = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    expected = outputs_of(detector, images)
    with torch.no_grad():
        detector.class_embed.bias.add_(1)  # it has the weights of before
    with AsOnGPU() as gpu:
        found = outputs_of(mixed, images)
    assert "layer_norm" in gpu.changed
    for name in ("pred_logits", "pred_boxes"):
        # Rounding may choose other tokens for a few queries.
        difference = (found[name].float() - expected[name]).abs().flatten(2).amax(2).median()
        assert 0 < difference < limit
    if config.segmentation_head:
        difference = (found["pred_masks"].dense() - expected["pred_masks"].dense()).abs().flatten(2).amax(2).median()
        assert 0 < difference < 10 * limit


@pytest.mark.parametrize("config", [pytest.param(TINY, id="boxes"), pytest.param(TINY_SEG, id="masks")])
def test_predict_uses_it(config: ModelConfig) -> None:
    detector = detector_of(config)
    mixed = MixedPrecisionDetector(detector, BF16)
    expected = predict(detector, PICTURES, CLASSES, threshold=0)
    with AsOnGPU():
        found = predict(mixed, PICTURES, CLASSES, threshold=0)
    for a, b in zip(found, expected, strict=True):
        assert a.confidence is not None
        assert b.confidence is not None
        assert not np.array_equal(a.confidence, b.confidence)
        assert a.confidence == pytest.approx(b.confidence, abs=0.06)
        assert (a.mask is None) == (b.mask is None) == (not config.segmentation_head)


def test_only_prediction_uses_it(shapes: Path, tmp_path: Path) -> None:
    plain = Model(detector_of(TINY), None, CPU)
    model = replace(plain, optimized=MixedPrecisionDetector(plain.detector, BF16))
    config = EvaluateConfig(dataset_dir=shapes, num_workers=0)
    assert evaluate_model(model, config).to_json() == evaluate_model(plain, config).to_json()
    save_model(model, tmp_path / "saved.pth")
    saved = load_checkpoint(tmp_path / "saved.pth").weights
    assert all(torch.equal(tensor, saved[name]) for name, tensor in plain.detector.state_dict().items())
    trained, _ = train_model(model, ModelSettings(), tiny_config(shapes, tmp_path / "run", device="cpu"))
    assert trained.optimized is None


def test_precision_decides_in_what_it_computes() -> None:
    assert MixedPrecisionDetector(Detector(TINY), BF16).dtype is torch.bfloat16
    assert MixedPrecisionDetector(Detector(TINY), OptimizeConfig(precision="fp16")).dtype is torch.float16


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        pytest.param({"precision": "32"}, "precision='32' is what the model computes in already", id="32"),
        pytest.param({"precision": "int8"}, "precision='int8' is for the CPU; on the cpu use", id="int8"),
        pytest.param({"precision": "int8-bf16"}, "precision='int8-bf16' is for the CPU", id="int8 and bf16"),
        pytest.param({"precision": "bf16", "batch_size": 4}, "batch_size is for the CPU", id="batch_size"),
    ],
)
def test_what_would_change_nothing_or_is_for_the_cpu_is_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=f"optimize: {message}"):
        MixedPrecisionDetector(Detector(TINY), OptimizeConfig.model_validate(settings))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("config", [pytest.param(TINY, id="boxes"), pytest.param(TINY_SEG, id="masks")])
def test_on_a_gpu(config: ModelConfig) -> None:
    detector = detector_of(config).to("cuda")
    expected = predict(detector, PICTURES, CLASSES, threshold=0)
    model = optimize_model(Model(detector, CLASSES, torch.device("cuda")), OptimizeConfig())
    for a, b in zip(predict(model.network, PICTURES, CLASSES, threshold=0), expected, strict=True):
        assert a.confidence is not None
        assert b.confidence is not None
        assert not np.array_equal(a.confidence, b.confidence)
        assert a.confidence == pytest.approx(b.confidence, abs=0.06)
