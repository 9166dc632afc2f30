import numpy as np
import pytest

from rfdetr.evaluation.detections import DetectionTable
from rfdetr.evaluation.matching import judge
from rfdetr.evaluation.threshold_sweep import OperatingPoint, best_operating_point
from rfdetr.types import Predictions

from .scenes import Thing, ground_truth, predictions

CAT, DOG, OWL = 0, 1, 2
NEAR, FAR = (0.0, 0.0, 10.0, 10.0), (50.0, 50.0, 10.0, 10.0)
ONE_CAT = [Thing(0, CAT, NEAR)]


def sweep(things: list[Thing], *images: Predictions) -> OperatingPoint:
    truth = ground_truth(things, max(1, len(images)))
    parts = [DetectionTable.from_predictions([row], [image]) for row, image in enumerate(images)]
    judged = np.concatenate([judge(truth, part) for part in parts])
    return best_operating_point(truth.labels[~truth.is_crowd], judged)


@pytest.mark.parametrize(
    ("things", "found", "expected"),
    [
        pytest.param(ONE_CAT, predictions((CAT, 0.8, NEAR)), OperatingPoint(1, 1, 1, 0.0), id="perfect"),
        pytest.param(
            ONE_CAT,
            predictions((CAT, 0.8, NEAR), (CAT, 0.305, FAR)),
            OperatingPoint(1, 1, 1, 0.31),
            id="the lowest threshold that leaves out the wrong one",
        ),
        pytest.param(
            ONE_CAT,
            predictions((CAT, 0.8, FAR), (CAT, 0.75, NEAR)),
            OperatingPoint(2 / 3, 1 / 2, 1, 0.0),
            id="a wrong one above the right one",
        ),
        pytest.param(
            ONE_CAT,
            predictions((CAT, 0.5, FAR), (CAT, 0.75, NEAR)),
            OperatingPoint(1, 1, 1, 0.5),
            id="a score equal to the threshold is not above it",
        ),
        pytest.param(
            ONE_CAT,
            predictions((CAT, 0.9, NEAR), (CAT, 0.8, NEAR)),
            OperatingPoint(1, 1, 1, 0.8),
            id="found twice is wrong once",
        ),
        pytest.param(
            ONE_CAT,
            predictions((CAT, 0.9, NEAR), (DOG, 0.95, FAR), (OWL, 0.99, NEAR)),
            OperatingPoint(1, 1, 1, 0.0),
            id="classes without objects do not count",
        ),
        pytest.param(
            [*ONE_CAT, Thing(0, DOG, FAR)],
            predictions((CAT, 0.9, NEAR)),
            OperatingPoint(1 / 2, 1 / 2, 1 / 2, 0.0),
            id="a missed class counts as 0",
        ),
        pytest.param(
            [*ONE_CAT, Thing(0, CAT, (40, 40, 60, 60), is_crowd=True)],
            predictions((CAT, 0.9, NEAR), (CAT, 0.95, FAR)),
            OperatingPoint(1, 1, 1, 0.0),
            id="on a crowd region is neither right nor wrong",
        ),
        pytest.param(ONE_CAT, predictions((CAT, 0.9, FAR)), OperatingPoint(0, 0, 0, None), id="nothing right"),
        pytest.param(ONE_CAT, predictions(), OperatingPoint(0, 0, 0, None), id="no predictions"),
        pytest.param([], predictions((CAT, 0.9, FAR)), OperatingPoint(None, None, None, None), id="no objects"),
        pytest.param(
            [Thing(0, CAT, NEAR, is_crowd=True)],
            predictions((CAT, 0.9, NEAR)),
            OperatingPoint(None, None, None, None),
            id="only a crowd region",
        ),
    ],
)
def test_best_operating_point(things: list[Thing], found: Predictions, expected: OperatingPoint) -> None:
    assert sweep(things, found) == expected


def test_the_best_threshold_is_common_to_all_classes() -> None:
    """Cats are best above 0.6, dogs above 0.2; at 0.6 a dog is lost, at 0.2 a wrong cat appears."""
    point = sweep(
        [Thing(0, CAT, NEAR), Thing(1, DOG, NEAR), Thing(2, DOG, NEAR)],
        predictions((CAT, 0.9, NEAR), (CAT, 0.6, FAR)),
        predictions((DOG, 0.9, NEAR)),
        predictions((DOG, 0.3, NEAR), (DOG, 0.2, FAR)),
    )
    # Above 0.20: cats 2/3, dogs 1 (mean 0.833). Above 0.60: cats 1, dogs 2/3 (the same): the lower one is taken.
    assert point.f1 == pytest.approx(5 / 6)
    assert (point.precision, point.recall, point.threshold) == (0.75, 1.0, 0.2)


def test_objects_are_found_in_their_own_image_only() -> None:
    assert sweep([Thing(0, CAT, NEAR)], predictions(), predictions((CAT, 0.9, NEAR))).f1 == 0
