from typing import Any

import pytest

from rfdetr.config.runs import TrainConfig
from rfdetr.evaluation.results import EvaluationResult
from rfdetr.training.epoch import EMA, REGULAR, EpochReport
from rfdetr.training.selection import better_kind, is_stalled, score_of, select
from rfdetr.training.state import Best, Progress

Scores = list[tuple[float | None, float | None]]


def selected(scores: Scores, **settings: Any) -> tuple[list[list[str]], int | None, Progress]:
    """What improved after each epoch with these regular and averaged scores (None: not evaluated), and the last epoch
    where the run stops early."""
    config = TrainConfig(dataset_dir="data", epochs=9, **settings)
    progress = Progress(seed=0, num_images=8, images_per_step=4)
    improved = []
    for epoch, values in enumerate(scores, start=1):
        results = {
            kind: EvaluationResult({"mAP_50_95": value, "epoch": float(epoch)}, {}, 1, 1)
            for kind, value in zip((REGULAR, EMA), values, strict=True)
            if value is not None
        }
        report = EpochReport(epoch, 10 * epoch, {"lr": 1e-4}, {}, 1.0, results)
        select(report, progress, config)
        improved.append(report.improved)
        if is_stalled(progress, config):
            return improved, epoch, progress
    return improved, None, progress


def test_each_kind_of_weights_has_a_best_of_its_own() -> None:
    improved, _, progress = selected([(0.1, 0.0), (0.3, 0.2), (None, None), (0.3, 0.4), (0.2, 0.3)])
    assert improved == [[REGULAR], [REGULAR, EMA], [], [EMA], []]
    rest = {"per_class": {}, "num_images": 1, "num_objects": 1}
    assert progress.best == {
        REGULAR: Best(0.3, 20, {"mAP_50_95": 0.3, "epoch": 2.0, **rest}),
        EMA: Best(0.4, 40, {"mAP_50_95": 0.4, "epoch": 4.0, **rest}),
    }
    assert better_kind(progress) == EMA


def test_the_first_epochs_can_be_left_out() -> None:
    improved, _, progress = selected([(0.9, 0.9), (0.9, 0.9), (0.1, 0.2)], skip_best_epochs=2)
    assert improved == [[], [], [REGULAR, EMA]]
    assert (progress.best[REGULAR].score, progress.best[EMA].score) == (0.1, 0.2)


UNKNOWN = (None, None)
RISING_EMA: Scores = [(0.2, 0.1), (0.2, 0.12), (0.2, 0.14), (0.2, 0.16)]


@pytest.mark.parametrize(
    ("scores", "settings", "stops_after"),
    [
        pytest.param([(0.2, 0.1)] * 4, {}, 3, id="nothing gets better"),
        pytest.param([(0.2, 0.1), (0.2, 0.1), (0.3, 0.1), (0.2, 0.1), (0.2, 0.1)], {}, 5, id="one gets better"),
        pytest.param(RISING_EMA, {}, 3, id="the worse of both gets better"),
        pytest.param(RISING_EMA, {"early_stopping_use_ema": True}, None, id="only the average is watched"),
        pytest.param(RISING_EMA, {"early_stopping_use_ema": True, "early_stopping_min_delta": 0.05}, 3, id="too slow"),
        pytest.param([(0.2, None)] * 4, {"early_stopping_use_ema": True}, 3, id="no average to watch"),
        pytest.param([(0.2, 0.1), UNKNOWN, UNKNOWN, UNKNOWN], {}, None, id="looked at when evaluated"),
        pytest.param([(0.2, 0.1), UNKNOWN, UNKNOWN, (0.2, 0.1)], {}, 4, id="epochs count, evaluated or not"),
        pytest.param([UNKNOWN, UNKNOWN, (0.2, 0.1), UNKNOWN, (0.3, 0.1)], {}, None, id="the first is no failure"),
        pytest.param([(0.2, 0.1)] * 6, {"skip_best_epochs": 2}, 5, id="the first epochs are left out"),
        pytest.param([(0.2, 0.1)] * 6, {"early_stopping": False}, None, id="off"),
    ],
)
def test_early_stopping_with_a_patience_of_two(
    scores: Scores, settings: dict[str, Any], stops_after: int | None
) -> None:
    if settings.get("early_stopping", True):
        settings = {"early_stopping": True, "early_stopping_patience": 2, **settings}
    _, stopped, _ = selected(scores, **settings)
    assert stopped == stops_after


@pytest.mark.parametrize(
    ("scores", "better"),
    [
        pytest.param([(0.3, 0.2)], REGULAR, id="regular"),
        pytest.param([(0.2, 0.3)], EMA, id="average"),
        pytest.param([(0.3, 0.3)], REGULAR, id="neither"),
        pytest.param([(0.3, 0.2), (0.1, 0.35)], EMA, id="of different epochs"),
        pytest.param([(0.0, 0.0)], REGULAR, id="nothing found"),
        pytest.param([(None, None)], REGULAR, id="never evaluated"),
    ],
)
def test_the_average_is_taken_only_where_it_is_better(scores: Scores, better: str) -> None:
    assert better_kind(selected(scores)[2]) == better


@pytest.mark.parametrize(
    ("broken", "improved", "watched"),
    [({EMA}, [REGULAR], 0.2), ({REGULAR}, [EMA], 0.3), ({REGULAR, EMA}, [], None)],
    ids=["average", "regular", "both"],
)
def test_weights_whose_detections_are_not_finite_do_not_count(
    broken: set[str], improved: list[str], watched: float | None
) -> None:
    results = {
        kind: EvaluationResult({"mAP_50_95": score}, {}, 1, 1, num_not_finite=int(kind in broken))
        for kind, score in {REGULAR: 0.2, EMA: 0.3}.items()
    }
    report = EpochReport(4, 40, {}, {}, 1.0, results)
    progress = Progress(seed=0, num_images=8, images_per_step=4)
    select(report, progress, TrainConfig(dataset_dir="data"))
    assert report.improved == improved
    assert list(progress.best) == improved
    assert progress.watched == watched


@pytest.mark.parametrize(
    ("metrics", "score"),
    [
        pytest.param({"mAP_50_95": 0.4}, 0.4, id="boxes"),
        pytest.param({"mAP_50_95": 0.4, "segm_mAP_50_95": 0.3}, 0.3, id="masks, though boxes are better"),
        pytest.param({"mAP_50_95": 0.4, "segm_mAP_50_95": None}, 0.0, id="masks of no objects"),
        pytest.param({"mAP_50_95": None}, 0.0, id="no objects"),
    ],
)
def test_best_is_by_masks_where_there_are_any(metrics: dict[str, float | None], score: float) -> None:
    assert score_of(EvaluationResult(metrics, {}, 1, 1), "mAP_50_95") == score


@pytest.mark.parametrize(
    ("metric", "score"), [("mAP_50_95", 0.1), ("mAP_50", 0.2), ("mAP_75", 0.3), ("mAR", 0.4), ("F1", 0.5)]
)
def test_the_best_metric_can_be_chosen(metric: str, score: float) -> None:
    metrics: dict[str, float | None] = {"mAP_50_95": 0.1, "mAP_50": 0.2, "mAP_75": 0.3, "mAR": 0.4, "F1": 0.5}
    report = EpochReport(1, 10, {}, {}, 1.0, {REGULAR: EvaluationResult(metrics, {}, 1, 1)})
    progress = Progress(seed=0, num_images=8, images_per_step=4)
    select(report, progress, TrainConfig.from_dict({"dataset_dir": "data", "best_metric": metric}))
    assert progress.best[REGULAR].score == progress.watched == score
