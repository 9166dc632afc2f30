from typing import Any

import pytest

from rfdetr.config.runs import TrainConfig
from rfdetr.evaluation.results import EvaluationResult
from rfdetr.training.display import Display, duration, epoch_line
from rfdetr.training.epoch import EMA, REGULAR, EpochReport


def scored(value: float | None) -> EvaluationResult:
    return EvaluationResult({"mAP_50_95": value, "mAP_50": value}, {}, num_images=1, num_objects=1)


def with_masks(boxes: float, masks: float) -> EvaluationResult:
    metrics: dict[str, float | None] = {"mAP_50_95": boxes, "mAP_50": boxes}
    return EvaluationResult({**metrics, "segm_mAP_50_95": masks, "segm_mAP_50": masks}, {}, 1, 1)


@pytest.mark.parametrize(
    ("parts", "seconds_left", "expected"),
    [
        pytest.param({}, 30.2, "epoch  3/30  loss 12.346  35.2 images/s  30s left", id="without evaluation"),
        pytest.param(
            {"results": {REGULAR: scored(0.4)}, "val_losses": {"loss": 11.8}},
            100,
            "epoch  3/30  loss 12.346  val 11.800  mAP 0.400  mAP50 0.400  35.2 images/s  1m 40s left",
            id="evaluated",
        ),
        pytest.param(
            {"results": {REGULAR: scored(0.4), EMA: scored(0.43)}, "improved": [EMA]},
            0,
            "epoch  3/30  loss 12.346  mAP 0.400 (ema 0.430)  mAP50 0.400  35.2 images/s  done  *",
            id="the last, and the best",
        ),
        pytest.param(
            {"results": {REGULAR: scored(None)}},
            0,
            "epoch  3/30  loss 12.346  mAP 0.000  mAP50 0.000  35.2 images/s  done",
            id="no objects to find",
        ),
        pytest.param(
            {"results": {REGULAR: with_masks(0.5, 0.4), EMA: with_masks(0.1, 0.43)}},
            0,
            "epoch  3/30  loss 12.346  mask mAP 0.400 (ema 0.430)  mask mAP50 0.400  box mAP 0.500  "
            "35.2 images/s  done",
            id="masks",
        ),
        pytest.param({"images_per_second": None}, 30.2, "epoch  3/30  loss 12.346  30s left", id="trained before"),
    ],
)
def test_line_of_an_epoch(parts: dict[str, object], seconds_left: float, expected: str) -> None:
    known: dict[str, Any] = {"images_per_second": 35.21, **parts}
    report = EpochReport(epoch=3, step=9, rates={"lr": 1e-4}, losses={"loss": 12.3456}, **known)
    assert epoch_line(report, TrainConfig(dataset_dir="data", epochs=30), seconds_left) == expected


def test_the_line_has_the_metric_that_decides() -> None:
    results = {
        REGULAR: EvaluationResult({"mAP_50_95": 0.1, "mAP_50": 0.2, "F1": 0.5}, {}, 1, 1),
        EMA: EvaluationResult({"mAP_50_95": 0.1, "mAP_50": 0.2, "F1": 0.6}, {}, 1, 1),
    }
    report = EpochReport(3, 9, {}, {}, None, results)
    config = TrainConfig(dataset_dir="data", epochs=3, best_metric="F1")
    assert epoch_line(report, config, 0) == (
        "epoch 3/3  loss 0.000  mAP 0.100 (ema 0.100)  mAP50 0.200  F1 0.500 / 0.600  done"
    )


@pytest.mark.parametrize("is_wanted", [True, False])
def test_each_class_has_its_ap_below_the_line(is_wanted: bool, capsys: pytest.CaptureFixture[str]) -> None:
    per_class = {"cat": 0.25, "guinea pig": None, **{f"class {number}": 0.5 for number in range(8)}}
    report = EpochReport(
        1, 1, {}, {}, None, {REGULAR: EvaluationResult({"mAP_50_95": 0.4, "mAP_50": 0.4}, per_class, 1, 1)}
    )
    config = TrainConfig(dataset_dir="data", log_per_class_metrics=is_wanted)
    Display(config, steps_per_epoch=1).close_epoch(report)
    _, *lines = capsys.readouterr().out.splitlines()
    expected = [
        "    cat 0.250  guinea pig -  class 0 0.500  class 1 0.500  class 2 0.500  class 3 0.500  class 4 0.500",
        "    class 5 0.500  class 6 0.500  class 7 0.500",
    ]
    assert lines == (expected if is_wanted else [])


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0.4, "0s"), (59.4, "59s"), (59.6, "1m 00s"), (200, "3m 20s"), (3599.7, "1h 00m"), (7500, "2h 05m")],
)
def test_duration(seconds: float, expected: str) -> None:
    assert duration(seconds) == expected
