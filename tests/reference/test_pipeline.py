"""From pictures to detections against the recorded ones: reading, resizing, detecting, selecting."""

from typing import Any

import numpy as np
import pytest

from rfdetr.coco_names import COCO
from rfdetr.inference.predictor import predict
from rfdetr.models.detector import Detector
from tests.oracles import oracle_detector, read_json, read_tensors


@pytest.fixture(scope="module")
def detector() -> Detector:
    return oracle_detector("nano").eval()


def picture(seed: int, height: int, width: int) -> Any:
    """Noisy squares, as the record describes them."""
    random = np.random.RandomState(seed)
    colors = random.randint(0, 256, (height // 10 + 2, width // 10 + 2, 3)).astype(np.uint8)
    squares = np.kron(colors, np.ones((10, 10, 1), np.uint8))[:height, :width].astype(int)
    return np.clip(squares + random.randint(-20, 21, (height, width, 3)), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("number", range(3))
def test_detections_of_a_picture(detector: Detector, number: int) -> None:
    rule = read_json("oracles/pipeline.json")[f"predict{number}"]
    recorded = {key: value.numpy() for key, value in read_tensors("oracles/pipeline.safetensors").items()}
    found = predict(detector, picture(rule["seed"], *rule["hw"]), COCO, threshold=rule["threshold"])
    assert found.confidence is not None
    assert found.class_id is not None
    assert len(found) == rule["n"]
    np.testing.assert_allclose(found.confidence, recorded[f"predict{number}.confidence"], atol=1e-5)
    # Two that score within rounding of each other may change places.
    same_box = np.abs(found.xyxy - recorded[f"predict{number}.xyxy"]).max(axis=1) < 1e-3
    assert np.mean(same_box & (found.class_id == recorded[f"predict{number}.class_id"])) >= 0.95
    assert found.data["class_name"][:1].tolist() == rule["class_name_first5"][:1]
