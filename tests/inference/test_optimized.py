import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jaxtyping
import numpy as np
import pytest
import torch
from tests.tiny import TINY, TINY_SEG
from torch import nn

from rfdetr.classes import ClassTable
from rfdetr.config.commands import OptimizeConfig
from rfdetr.devices import multiplies_bfloat16
from rfdetr.errors import ConfigError
from rfdetr.inference import programs
from rfdetr.inference.optimized import OptimizedDetector
from rfdetr.inference.predictor import predict
from rfdetr.models.detector import Detector
from rfdetr.types import LayerOutputs

pytest.importorskip("openvino")
CLASSES = ClassTable.from_categories((index, f"class {index}") for index in range(TINY.num_classes))
PICTURES = [np.random.default_rng(seed).integers(0, 256, (50, 70, 3), dtype=np.uint8) for seed in range(3)]
EXACT = OptimizeConfig(precision="32")
needs_bfloat16 = pytest.mark.skipif(not multiplies_bfloat16(), reason="needs a processor with products of bfloat16")


@pytest.fixture(autouse=True)
def _unchecked_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a trace sizes are tensors, too."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty one; other tests share that of the session."""
    monkeypatch.setenv("RFDETR_CACHE", str(tmp_path))
    return tmp_path / "optimized"


def expected_of(detector: Detector, images: torch.Tensor) -> LayerOutputs:
    with torch.no_grad():
        outputs: LayerOutputs = detector.eval()(images)
    return outputs


@pytest.mark.parametrize("batch_size", [1, 2, 4], ids=["1", "2", "more than there are"])
def test_in_float32_it_predicts_what_the_detector_does_in_batches_of_any_size(batch_size: int) -> None:
    detector = Detector(TINY)
    optimized = OptimizedDetector(detector, EXACT.replace(batch_size=batch_size))
    images = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    found, expected = optimized(images), expected_of(detector, images)
    torch.testing.assert_close(found["pred_logits"], expected["pred_logits"], rtol=0, atol=1e-5)
    torch.testing.assert_close(found["pred_boxes"], expected["pred_boxes"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("grid_size", [6, 11])
def test_positions_of_another_grid_are_resized_as_the_detector_does(grid_size: int) -> None:
    detector = Detector(TINY.replace(positional_encoding_size=grid_size))
    positions = detector.backbone.vit.embeddings.position_embeddings
    nn.init.normal_(positions, std=0.5, generator=torch.Generator().manual_seed(0))
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    found, expected = OptimizedDetector(detector, EXACT)(images), expected_of(detector, images)
    torch.testing.assert_close(found["pred_logits"], expected["pred_logits"], rtol=0, atol=1e-5)


def test_masks_are_predicted_too() -> None:
    detector = Detector(TINY_SEG).eval()
    expected = predict(detector, PICTURES, CLASSES, threshold=0)
    found = predict(OptimizedDetector(detector, EXACT), PICTURES, CLASSES, threshold=0)
    for a, b in zip(found, expected, strict=True):
        assert isinstance(a.mask, np.ndarray)
        assert isinstance(b.mask, np.ndarray)
        assert np.allclose(a.xyxy, b.xyxy, atol=1e-3)
        assert (a.mask == b.mask).mean() > 0.999


@needs_bfloat16
def test_in_bfloat16_it_predicts_nearly_the_same() -> None:
    detector = Detector(TINY)
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    found, expected = (
        OptimizedDetector(detector, OptimizeConfig(precision="bf16"))(images),
        expected_of(detector, images),
    )
    difference = (found["pred_logits"] - expected["pred_logits"]).abs()
    assert 0 < difference.mean() < 0.05


def test_the_number_format_is_the_one_asked_for() -> None:
    assert OptimizedDetector(Detector(TINY), EXACT).precision == "32"
    with pytest.raises(ConfigError, match=r"precision.*'fp8'"):
        OptimizeConfig.from_dict({"precision": "fp8"})


def test_a_second_process_finds_the_program(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    OptimizedDetector(Detector(TINY), EXACT)
    assert "the model is converted, and kept in" in capsys.readouterr().out
    (file,) = cache.glob("*/detector.xml")
    written = file.stat().st_mtime_ns
    OptimizedDetector(Detector(TINY), OptimizeConfig())
    assert capsys.readouterr().out == ""
    assert [path.stat().st_mtime_ns for path in cache.glob("*/detector.xml")] == [written]


def test_other_weights_batches_and_code_are_other_programs(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    detector = Detector(TINY)
    made = [programs.kept_program(detector, 1), programs.kept_program(detector, 2)]
    with torch.no_grad():
        next(detector.parameters()).add_(1)
    made.append(programs.kept_program(detector, 1))
    changed = tmp_path / "models"
    shutil.copytree(programs.CODE[0], changed)
    with (changed / "mlp.py").open("a") as file:
        file.write("\n")
    monkeypatch.setattr(programs, "CODE", (changed, programs.CODE[1]))
    made.append(programs.kept_program(detector, 1))
    assert len(set(made)) == 4
    assert len(list(cache.iterdir())) == 4


def test_the_last_ones_are_kept(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "PROGRAMS_KEPT", 2)
    made = [programs.kept_program(Detector(TINY), size) for size in (1, 2, 3)]
    assert [file.is_file() for file in made] == [False, True, True]
    assert len(list(cache.iterdir())) == 2


def test_threads_may_share_it() -> None:
    optimized = OptimizedDetector(Detector(TINY), EXACT)
    images = [torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(seed)) for seed in range(8)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(optimized, images))
    for image, found in zip(images, together, strict=True):
        assert torch.equal(found["pred_logits"], optimized(image)["pred_logits"])


def test_a_cache_that_cannot_be_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("RFDETR_CACHE", str(tmp_path / "file"))
    with pytest.raises(ConfigError, match=r"optimize: .*optimized: .* can be named in RFDETR_CACHE$"):
        OptimizedDetector(Detector(TINY), EXACT)


def test_half_precision_is_not_for_the_cpu() -> None:
    with pytest.raises(ConfigError, match="optimize: precision='fp16' needs a GPU; on the CPU use 'auto'"):
        OptimizedDetector(Detector(TINY), OptimizeConfig(precision="fp16"))


def test_an_openvino_that_is_too_old_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openvino.__version__", "2026.2.1-21919-release")
    message = (
        "optimize: needs OpenVINO 2026.3 or later, this is 2026.2.1. "
        "Install it: pip install --upgrade 'openvino>=2026.3'"
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        OptimizedDetector(Detector(TINY), EXACT)


def test_a_program_that_cannot_be_loaded(cache: Path) -> None:
    file = programs.kept_program(Detector(TINY), 1)
    file.write_text(file.read_text()[:1000])
    with pytest.raises(
        ConfigError, match=rf"cannot load the model in precision='32': .* or remove {file.parent}, from"
    ):
        OptimizedDetector(Detector(TINY), EXACT)
