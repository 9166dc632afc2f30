import json
from pathlib import Path

import jaxtyping
import numpy as np
import pytest
import torch
from PIL import Image
from supervision import Detections

from rfdetr import RFDETR, ConfigError
from rfdetr.classes import ClassTable
from rfdetr.cli.main import main
from rfdetr.models.detector import Detector
from rfdetr.weights.checkpoint import Checkpoint, load_checkpoint, save_checkpoint

from .training.tiny import STILL, TINY

pytest.importorskip("openvino")
NAMES = ("circle", "rectangle", "triangle", "star")
PICTURES = [np.random.default_rng(seed).integers(0, 256, (50, 70, 3), dtype=np.uint8) for seed in range(3)]


@pytest.fixture(autouse=True)
def _unchecked_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a trace sizes are tensors, too."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.pth"
    save_checkpoint(path, Checkpoint(Detector(TINY).state_dict(), TINY, ClassTable.from_categories(enumerate(NAMES))))
    return path


@pytest.fixture
def model(file: Path) -> RFDETR:
    return RFDETR.from_checkpoint(file, device="cpu")


def scores(found: Detections) -> np.ndarray:
    assert found.confidence is not None
    return found.confidence


def spoil(model: RFDETR) -> None:
    """What reads the weights of the model from now on is other than it was."""
    with torch.no_grad():
        model.detector.class_embed.bias.add_(1)


def test_prediction_uses_it(model: RFDETR) -> None:
    expected = model.predict(PICTURES, threshold=0)
    model.optimize(precision="32")
    spoil(model)
    found = [model.predict(PICTURES[0], threshold=0), *list(model.predict_each(PICTURES, threshold=0))[1:]]
    for a, b in zip(found, expected, strict=True):
        assert np.allclose(scores(a), scores(b), atol=1e-5)
        assert np.allclose(a.xyxy, b.xyxy, atol=1e-2)


def test_evaluation_and_files_keep_to_the_weights(model: RFDETR, shapes: Path, tmp_path: Path) -> None:
    expected = model.evaluate(dataset_dir=shapes, num_workers=0)
    model.optimize()
    assert model.evaluate(dataset_dir=shapes, num_workers=0).to_json() == expected.to_json()
    model.save(tmp_path / "saved.pth")
    saved = load_checkpoint(tmp_path / "saved.pth").weights
    assert all(torch.equal(tensor, saved[name]) for name, tensor in model.detector.state_dict().items())


def test_training_drops_it(model: RFDETR, shapes: Path, tmp_path: Path) -> None:
    model.optimize(precision="32")
    settings = {**STILL, "epochs": 1, "batch_size": 8, "grad_accum_steps": 1, "num_workers": 0, "sample_interval": 0}
    model.train(dataset_dir=shapes, output_dir=tmp_path, **settings)
    before = scores(model.predict(PICTURES[0], threshold=0))
    spoil(model)
    assert scores(model.predict(PICTURES[0], threshold=0)).max() > before.max() + 0.01


def test_a_setting_that_does_not_exist(model: RFDETR) -> None:
    with pytest.raises(ConfigError, match="OptimizeConfig: dtype: no such setting"):
        model.optimize(dtype="bf16")  # type: ignore[call-overload]


def test_on_the_command_line(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for index, picture in enumerate(PICTURES):
        Image.fromarray(picture).save(tmp_path / f"{index}.png")
    arguments = [str(tmp_path), "--model", str(file), "--device", "cpu", "--threshold", "0"]
    best = []
    for folder, flags in (("plain", []), ("optimized", ["--optimize"])):
        capsys.readouterr()
        assert main(["predict", *arguments, "--output-dir", str(tmp_path / folder), *flags]) == 0
        assert ("prediction now runs in OpenVINO" in capsys.readouterr().out) == (folder == "optimized")
        rows = json.loads((tmp_path / folder / "predictions.json").read_text())
        best.append([row["detections"][0]["score"] for row in rows])
    plain, optimized = best
    assert np.allclose(plain, optimized, atol=0.05)
