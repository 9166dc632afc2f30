import numpy as np

from rfdetr.evaluation.detections import DetectionTable

from .scenes import predictions

ONE, TWO = (0, 0.9, (1.0, 2.0, 3.0, 4.0)), (1, 0.8, (5.0, 6.0, 7.0, 8.0))


def test_it_holds_the_predictions_of_all_images_one_after_the_other() -> None:
    table = DetectionTable.from_predictions([4, 2, 9], [predictions(ONE, TWO), predictions(), predictions(TWO)])
    assert len(table) == 3
    assert table.images.tolist() == [4, 4, 9]
    assert table.labels.tolist() == [0, 1, 1]
    assert table.boxes_xyxy[0].tolist() == [1, 2, 4, 6]
    assert table.boxes_xywh[0].tolist() == [1, 2, 3, 4]
    assert table.scores.dtype == table.boxes_xyxy.dtype == np.float32


def test_no_predictions_give_an_empty_table() -> None:
    assert len(DetectionTable.from_predictions([], [])) == 0


def test_where_keeps_rows() -> None:
    table = DetectionTable.from_predictions([3], [predictions(ONE, TWO)]).where(np.array([False, True]))
    assert (table.images.tolist(), table.labels.tolist()) == ([3], [1])


def test_a_nan_or_infinity_anywhere_in_box_or_score_is_not_finite() -> None:
    nan, inf = float("nan"), float("inf")
    rows = [ONE, (0, nan, (1.0, 2.0, 3.0, 4.0)), (0, 0.5, (inf, 2.0, 3.0, 4.0)), (0, 0.5, (1.0, 2.0, 3.0, nan))]
    table = DetectionTable.from_predictions([0], [predictions(*rows)])
    assert table.is_finite.tolist() == [True, False, False, False]
