import numpy as np
import pytest
import torch
from tests.as_on_gpu import AsOnGPU
from tests.tiny import TINY, TINY_SEG

from rfdetr.classes import ClassTable
from rfdetr.config.commands import OptimizeConfig
from rfdetr.config.model import ModelConfig
from rfdetr.errors import ConfigError
from rfdetr.inference.mixed_precision import MixedPrecisionDetector
from rfdetr.inference.predictor import predict
from rfdetr.lifecycle import Model, optimize_model
from rfdetr.models.detector import Detector

CLASSES = ClassTable.from_categories((index, f"class {index}") for index in range(TINY.num_classes))
PICTURES = [np.random.default_rng(seed).integers(0, 256, (50, 70, 3), dtype=np.uint8) for seed in range(3)]
BF16 = OptimizeConfig(precision="bf16")


@pytest.mark.parametrize("config", [pytest.param(TINY, id="boxes"), pytest.param(TINY_SEG, id="masks")])
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_it_predicts_nearly_what_the_detector_does(config: ModelConfig, precision: str) -> None:
    detector = Detector(config)
    mixed = MixedPrecisionDetector(detector, OptimizeConfig.model_validate({"precision": precision}))
    expected = predict(detector, PICTURES, CLASSES, threshold=0)
    with torch.no_grad():
        detector.class_embed.bias.add_(1)  # it has the weights of before
    with AsOnGPU():
        found = predict(mixed, PICTURES, CLASSES, threshold=0)
    for a, b in zip(found, expected, strict=True):
        assert len(a) == len(b)
        assert a.confidence == pytest.approx(b.confidence, abs=0.02)
        assert (a.mask is None) == (b.mask is None) == (not config.segmentation_head)


def test_precision_decides_in_what_it_computes() -> None:
    assert MixedPrecisionDetector(Detector(TINY), BF16).dtype is torch.bfloat16
    assert MixedPrecisionDetector(Detector(TINY), OptimizeConfig(precision="fp16")).dtype is torch.float16


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        pytest.param({"precision": "32"}, "precision='32' is what the model computes in already", id="32"),
        pytest.param({"precision": "bf16", "batch_size": 4}, "batch_size is for the CPU", id="batch_size"),
    ],
)
def test_what_would_change_nothing_is_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=f"optimize: {message}"):
        MixedPrecisionDetector(Detector(TINY), OptimizeConfig.model_validate(settings))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("config", [pytest.param(TINY, id="boxes"), pytest.param(TINY_SEG, id="masks")])
def test_on_a_gpu(config: ModelConfig) -> None:
    detector = Detector(config).to("cuda")
    expected = predict(detector, PICTURES, CLASSES, threshold=0)
    model = optimize_model(Model(detector, CLASSES, torch.device("cuda")), OptimizeConfig())
    assert isinstance(model.optimized, MixedPrecisionDetector)
    for a, b in zip(predict(model.network, PICTURES, CLASSES, threshold=0), expected, strict=True):
        assert a.confidence == pytest.approx(b.confidence, abs=0.02)
