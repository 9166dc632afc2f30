"""From pictures to detections against the recorded ones: reading, resizing, detecting, selecting."""

import numpy as np
import pytest

from rfdetr.coco_names import COCO
from rfdetr.inference.predictor import predict
from rfdetr.models.detector import Detector
from tests.oracles import oracle_detector, picture, read_json, read_tensors


@pytest.fixture(scope="module")
def detector() -> Detector:
    return oracle_detector("nano").eval()


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
