"""What "best" means, and when to stop waiting for better: said once, here."""

import lightning.pytorch as lightning

from rfdetr.config.runs import TrainConfig
from rfdetr.evaluation.results import EvaluationResult
from rfdetr.training.callbacks.validation import Validation
from rfdetr.training.epoch import EMA, REGULAR, EpochReport
from rfdetr.training.state import BestScores, Progress

BOXES, MASKS = "mAP_50_95", "segm_mAP_50_95"


def score_of(result: EvaluationResult) -> float:
    """The mAP of masks where there are any, else of boxes; 0 where it is not defined."""
    return result[MASKS if result.has_masks else BOXES] or 0.0


class Selection(lightning.Callback):
    """Keeps the best scores, and ends the run when they stall (early stopping)."""

    def __init__(self, validation: Validation, progress: Progress, config: TrainConfig) -> None:
        self.validation = validation
        self.progress = progress
        self.config = config

    def on_train_epoch_end(self, trainer: lightning.Trainer, _: lightning.LightningModule) -> None:
        report = self.validation.report
        if report is None or not report.results or report.epoch <= self.config.skip_best_epochs:
            return
        self._update_best(report, self.progress.best)
        if self.config.early_stopping and self._stalls(report, self.progress.best):
            trainer.should_stop = True

    def _update_best(self, report: EpochReport, best: BestScores) -> None:
        for kind, result in report.results.items():
            if score_of(result) > getattr(best, kind):
                setattr(best, kind, score_of(result))
                setattr(best, f"{kind}_metrics", result.to_json())
                report.improved.append(kind)

    def _stalls(self, report: EpochReport, best: BestScores) -> bool:
        kinds = [EMA] if self.config.early_stopping_use_ema and EMA in report.results else [REGULAR, EMA]
        score = max(score_of(report.results[kind]) for kind in kinds if kind in report.results)
        if best.watched is None or score > best.watched + self.config.early_stopping_min_delta:
            best.watched, best.evaluations_without_improvement = score, 0
        else:
            best.evaluations_without_improvement += 1
        return best.evaluations_without_improvement >= self.config.early_stopping_patience
