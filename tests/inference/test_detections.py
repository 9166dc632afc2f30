import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask
from supervision import Detections
from torch.nn import functional

from rfdetr.classes import ClassTable
from rfdetr.inference.detections import named_detections, to_json, to_supervision
from rfdetr.types import Predictions

CLASSES = ClassTable.from_categories([(7, "cat"), (9, "dog")])
PREDICTIONS = Predictions(
    boxes=torch.tensor([[0.0, 1.0, 2.0, 3.0], [4.0, 5.0, 6.0, 7.0], [8.0, 9.0, 10.0, 11.125]]),
    scores=torch.tensor([0.75, 0.5, 0.25]),
    labels=torch.tensor([1, 0, 2]),
)


def names(detections: Detections) -> list[str]:
    return [str(name) for name in detections.data["class_name"]]


SIZE_HW = (40, 60)
NOTHING = Predictions(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0).long())


def with_masks(predictions: Predictions, seed: int = 0) -> Predictions:
    random = torch.Generator().manual_seed(seed)
    return replace(predictions, mask_logits=torch.randn(len(predictions.scores), 4, 5, generator=random))


def test_detections_have_names_and_keep_their_order() -> None:
    detections = to_supervision(PREDICTIONS, CLASSES, SIZE_HW)
    assert detections.xyxy.tolist() == PREDICTIONS.boxes.tolist()
    assert detections.confidence is not None
    assert detections.confidence.tolist() == [0.75, 0.5, 0.25]
    assert detections.class_id is not None
    assert detections.class_id.tolist() == [1, 0, 2]
    assert detections.mask is None


def test_the_logit_after_the_last_class_is_background() -> None:
    assert names(to_supervision(PREDICTIONS, CLASSES, SIZE_HW)) == ["dog", "cat", "__background__"]


def test_empty_detections_are_well_formed() -> None:
    detections = to_supervision(NOTHING, CLASSES, SIZE_HW)
    assert len(detections) == 0
    assert detections.confidence is not None
    assert detections.class_id is not None
    arrays = (detections.xyxy, detections.confidence, detections.class_id)
    assert [array.shape for array in arrays] == [(0, 4), (0,), (0,)]
    assert [str(array.dtype) for array in arrays] == ["float32", "float32", "int64"]
    class_name = detections.data["class_name"]
    assert isinstance(class_name, np.ndarray)
    assert (class_name.shape, class_name.dtype.kind) == ((0,), "U")


@pytest.mark.parametrize("masked", [False, True], ids=["boxes", "masks"])
def test_empty_and_full_detections_merge(masked: bool) -> None:
    parts = [with_masks(part) if masked else part for part in (NOTHING, PREDICTIONS)]
    merged = Detections.merge([to_supervision(part, CLASSES, SIZE_HW) for part in parts])
    assert names(merged) == ["dog", "cat", "__background__"]


@pytest.mark.parametrize("count", [0, 1, 70])
@pytest.mark.parametrize("size_hw", [(40, 60), (1, 1), (3, 200)], ids=str)
def test_masks_have_the_size_of_the_image(count: int, size_hw: tuple[int, int]) -> None:
    some = Predictions(torch.zeros(count, 4), torch.zeros(count), torch.zeros(count).long())
    predictions = with_masks(some)
    masks = to_supervision(predictions, CLASSES, size_hw).mask
    assert isinstance(masks, np.ndarray)
    assert (masks.shape, str(masks.dtype)) == ((count, *size_hw), "bool")
    assert predictions.mask_logits is not None
    for mask, logits in zip(masks, predictions.mask_logits, strict=True):
        enlarged = functional.interpolate(logits[None, None], size_hw, mode="bilinear", align_corners=False)
        assert np.array_equal(mask, (enlarged[0, 0] > 0).numpy())


def test_ground_truth_has_no_confidence() -> None:
    truth = named_detections(np.array([[0.0, 0.0, 5.0, 5.0]]), np.array([0]), CLASSES)
    assert truth.confidence is None
    assert names(truth) == ["cat"]


def test_json_holds_plain_rounded_values() -> None:
    detections = to_supervision(PREDICTIONS, CLASSES, SIZE_HW)[1:]
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


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of pycocotools with numpy 2
@pytest.mark.parametrize("size_hw", [(40, 60), (1, 1), (300, 7)], ids=str)
def test_masks_in_json_are_readable_by_pycocotools(size_hw: tuple[int, int]) -> None:
    masks = np.random.default_rng(0).random((3, *size_hw)) < 0.5
    masks[0], masks[1] = False, True
    detections = replace(to_supervision(PREDICTIONS, CLASSES, size_hw), mask=masks)
    rows = json.loads(json.dumps(to_json("a.jpg", detections)))["detections"]
    assert [list(row) for row in rows] == [["class_id", "class_name", "score", "box", "segmentation"]] * 3
    for row, mask in zip(rows, masks, strict=True):
        assert row["segmentation"]["size"] == list(size_hw)
        assert np.array_equal(coco_mask.decode(row["segmentation"]), mask)


def test_no_detections_are_no_rows_in_json() -> None:
    for predictions in (NOTHING, with_masks(NOTHING)):
        assert to_json("a.jpg", to_supervision(predictions, CLASSES, SIZE_HW)) == {"image": "a.jpg", "detections": []}


FIRST = """
import sys, warnings
from rfdetr.data.pillow import QUIET
from rfdetr.inference.detections import detections_class

class Reader:
    def find_spec(self, name, *_):
        if name == "supervision":
            QUIET.__exit__(None, None, None)

QUIET.__enter__()
before = list(warnings.filters)
sys.meta_path.insert(0, Reader())
detections_class()
print(warnings.filters == before)
"""


def test_the_first_detections_leave_warnings_as_they_were() -> None:
    """Also where the reading of a picture ends in the middle of the import."""
    done = subprocess.run([sys.executable, "-c", FIRST], capture_output=True, text=True, check=True)  # noqa: S603
    assert done.stdout == "True\n"
