from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
import pytest

from rfdetr.data.batches import EpochBatches
from rfdetr.data.coco import read_coco
from rfdetr.evaluation.results import EvaluationResult
from rfdetr.training.callbacks.selection import Selection, score_of
from rfdetr.training.callbacks.validation import Validation
from rfdetr.training.epoch import EMA, REGULAR, EpochReport
from rfdetr.training.state import Progress
from rfdetr.training.trainer import build_trainer

from ..tiny import CPU, tiny_config

Scores = list[tuple[float | None, float | None]]


def select(shapes: Path, scores: Scores, **settings: Any) -> tuple[list[list[str]], int | None, Progress]:
    """What improved after each epoch with these regular and averaged scores (None: not evaluated), and the last epoch
    where the run stops early."""
    config = tiny_config(shapes, shapes, epochs=9, **settings)
    batches = EpochBatches(8, 4, 1, seed=0, rank=0, world_size=1, scale_of_step=lambda step: 64)
    validation = Validation(read_coco(shapes, "valid"), config, batches)
    progress = Progress(seed=0)
    selection = Selection(validation, progress, config)
    trainer = build_trainer(config, CPU, [], epochs=9)
    improved = []
    for epoch, values in enumerate(scores, start=1):
        results = {
            kind: EvaluationResult({"mAP_50_95": value, "epoch": float(epoch)}, {}, 1, 1)
            for kind, value in zip((REGULAR, EMA), values, strict=True)
            if value is not None
        }
        validation.report = EpochReport(epoch, epoch, 1e-4, {}, 1.0, results)
        selection.on_train_epoch_end(trainer, lightning.LightningModule())
        improved.append(validation.report.improved)
        if trainer.should_stop:
            return improved, epoch, progress
    return improved, None, progress


def test_each_kind_of_weights_has_a_best_of_its_own(shapes: Path) -> None:
    improved, _, progress = select(shapes, [(0.1, 0.0), (0.3, 0.2), (None, None), (0.3, 0.4), (0.2, 0.3)])
    assert improved == [[REGULAR], [REGULAR, EMA], [], [EMA], []]
    best = progress.best
    assert (best.regular, best.ema) == (0.3, 0.4)
    assert best.regular_metrics is not None
    assert best.ema_metrics is not None
    assert (best.regular_metrics["epoch"], best.ema_metrics["epoch"]) == (2, 4)


def test_the_first_epochs_can_be_left_out(shapes: Path) -> None:
    improved, _, progress = select(shapes, [(0.9, 0.9), (0.9, 0.9), (0.1, 0.2)], skip_best_epochs=2)
    assert improved == [[], [], [REGULAR, EMA]]
    assert (progress.best.regular, progress.best.ema) == (0.1, 0.2)


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
        pytest.param([(0.2, 0.1), (None, None), (None, None), (0.2, 0.1)], {}, None, id="without evaluation no count"),
        pytest.param([(0.2, 0.1)] * 6, {"skip_best_epochs": 2}, 5, id="the first epochs are left out"),
        pytest.param([(0.2, 0.1)] * 6, {"early_stopping": False}, None, id="off"),
    ],
)
def test_early_stopping_with_a_patience_of_two(
    scores: Scores, settings: dict[str, Any], stops_after: int | None, shapes: Path
) -> None:
    if settings.get("early_stopping", True):
        settings = {"early_stopping": True, "early_stopping_patience": 2, **settings}
    _, stopped, _ = select(shapes, scores, **settings)
    assert stopped == stops_after


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
    assert score_of(EvaluationResult(metrics, {}, 1, 1)) == score
