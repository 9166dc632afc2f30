"""What "best" means, and when to stop waiting for better: said once, here."""

from rfdetr.config.runs import TrainConfig
from rfdetr.evaluation.results import EvaluationResult
from rfdetr.training.epoch import EMA, REGULAR, EpochReport
from rfdetr.training.state import Best, Progress


def score_of(result: EvaluationResult, metric: str) -> float:
    """`best_metric` of an evaluation: of masks where they have it, else of boxes; 0 where it is not defined."""
    of_masks = f"segm_{metric}"
    return result[of_masks if of_masks in result else metric] or 0.0


def select(report: EpochReport, progress: Progress, config: TrainConfig) -> None:
    """Take note of an epoch's scores: which weights are better than ever, and whether early stopping sees progress.

    The first `skip_best_epochs` epochs count for neither, nor do weights with detections that are not finite.
    """
    if not report.results or report.epoch <= config.skip_best_epochs:
        return
    valid = {kind: result for kind, result in report.results.items() if not result.num_not_finite}
    scores = {kind: score_of(result, config.best_metric) for kind, result in valid.items()}
    if not scores:
        return
    for kind, score in scores.items():
        if score > progress.best.setdefault(kind, Best()).score:
            progress.best[kind] = Best(score, report.step, report.results[kind].to_json())
            report.improved.append(kind)
    watched = scores[EMA] if config.early_stopping_use_ema and EMA in scores else max(scores.values())
    progress.evaluated_epoch = report.epoch
    if progress.watched is None or watched > progress.watched + config.early_stopping_min_delta:
        progress.watched, progress.watched_epoch = watched, report.epoch


def is_stalled(progress: Progress, config: TrainConfig) -> bool:
    """Whether early stopping ends the run: `early_stopping_patience` epochs up to an evaluation without improvement."""
    waited = progress.evaluated_epoch - progress.watched_epoch
    return config.early_stopping and waited >= config.early_stopping_patience


def better_kind(progress: Progress) -> str:
    """The kind of weights in `checkpoint_best_total.pth`: the averaged ones only if strictly better."""
    regular, ema = (progress.best.get(kind, Best()).score for kind in (REGULAR, EMA))
    return EMA if ema > regular else REGULAR
