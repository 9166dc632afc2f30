import json

import numpy as np
import pytest
import torch

from rfdetr.classes import ClassTable
from rfdetr.inference.detections import Detections, named_detections, to_json, to_supervision
from rfdetr.types import Predictions

CLASSES = ClassTable.from_categories([(7, "cat"), (9, "dog")])
PREDICTIONS = Predictions(
    boxes=torch.tensor([[0.0, 1.0, 2.0, 3.0], [4.0, 5.0, 6.0, 7.0], [8.0, 9.0, 10.0, 11.125]]),
    scores=torch.tensor([0.75, 0.5, 0.25]),
    labels=torch.tensor([1, 0, 2]),
)


def names(detections: Detections) -> list[str]:
    return [str(name) for name in detections.data["class_name"]]


def test_what_scores_above_the_threshold_is_kept_with_its_name() -> None:
    detections = to_supervision(PREDICTIONS, CLASSES, threshold=0.25)
    assert detections.xyxy.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert detections.confidence is not None
    assert detections.confidence.tolist() == [0.75, 0.5]
    assert detections.class_id is not None
    assert detections.class_id.tolist() == [1, 0]
    assert names(detections) == ["dog", "cat"]


def test_the_logit_after_the_last_class_is_background() -> None:
    detections = to_supervision(PREDICTIONS, CLASSES, threshold=0)
    assert names(detections) == ["dog", "cat", "__background__"]


@pytest.mark.parametrize(
    "predictions",
    [
        pytest.param(PREDICTIONS, id="none above the threshold"),
        pytest.param(Predictions(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0).long()), id="none at all"),
    ],
)
def test_empty_detections_are_well_formed(predictions: Predictions) -> None:
    detections = to_supervision(predictions, CLASSES, threshold=1.0)
    assert len(detections) == 0
    assert detections.confidence is not None
    assert detections.class_id is not None
    arrays = (detections.xyxy, detections.confidence, detections.class_id)
    assert [array.shape for array in arrays] == [(0, 4), (0,), (0,)]
    assert [str(array.dtype) for array in arrays] == ["float32", "float32", "int64"]
    class_name = detections.data["class_name"]
    assert isinstance(class_name, np.ndarray)
    assert (class_name.shape, class_name.dtype.kind) == ((0,), "U")


def test_empty_and_full_detections_merge() -> None:
    parts = [to_supervision(PREDICTIONS, CLASSES, threshold) for threshold in (1.0, 0.6)]
    assert names(Detections.merge(parts)) == ["dog"]


def test_ground_truth_has_no_confidence() -> None:
    truth = named_detections(np.array([[0.0, 0.0, 5.0, 5.0]]), np.array([0]), CLASSES)
    assert truth.confidence is None
    assert names(truth) == ["cat"]


def test_json_holds_plain_rounded_values() -> None:
    detections = to_supervision(PREDICTIONS, CLASSES, threshold=0.0)[1:]
    assert isinstance(detections, Detections)
    plain = to_json("a.jpg", detections)
    assert json.loads(json.dumps(plain)) == plain
    assert plain == {
        "image": "a.jpg",
        "detections": [
            {"class_id": 0, "class_name": "cat", "score": 0.5, "box": [4.0, 5.0, 6.0, 7.0]},
            {"class_id": 2, "class_name": "__background__", "score": 0.25, "box": [8.0, 9.0, 10.0, 11.12]},
        ],
    }
