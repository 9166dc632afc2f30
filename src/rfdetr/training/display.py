"""What a person sees of a run: a line per epoch, and on request a bar within it."""

import textwrap
import time
from collections.abc import Callable
from contextlib import ExitStack

from tqdm import tqdm

from rfdetr.config.runs import TrainConfig
from rfdetr.console import say
from rfdetr.distributed import rank_and_world_size
from rfdetr.evaluation.results import EvaluationResult
from rfdetr.training.epoch import EMA, REGULAR, EpochReport
from rfdetr.training.selection import score_of
from rfdetr.training.state import Progress


class Display:
    """`epoch  3/30  loss 12.340  val 11.800  mAP 0.412 (ema 0.430)  mAP50 0.655  35.2 images/s  1m 40s left`.

    Of a segmentation model: `mask mAP 0.412 (ema 0.430)  mask mAP50 0.655  box mAP 0.471`.
    """

    def __init__(self, config: TrainConfig, steps_per_epoch: int) -> None:
        self.config = config
        self.steps_per_epoch = steps_per_epoch
        self._epoch_seconds: list[float] = []
        self._started = 0.0
        self._bar: Bar | None = None

    def open_epoch(self, progress: Progress) -> None:
        self._started = time.perf_counter()
        steps = self.steps_per_epoch - progress.step_in_epoch
        if self.config.progress_bar and rank_and_world_size()[0] == 0:
            self._bar = Bar(str(self.config.progress_bar), f"epoch {progress.epoch + 1}/{self.config.epochs}", steps)

    def advance(self) -> None:
        if self._bar:
            self._bar.advance()

    def close_bar(self) -> None:
        if self._bar:
            self._bar.close()
            self._bar = None

    def close_epoch(self, report: EpochReport) -> None:
        self._epoch_seconds.append(time.perf_counter() - self._started)
        left = sum(self._epoch_seconds) / len(self._epoch_seconds) * (self.config.epochs - report.epoch)
        say(epoch_line(report, self.config, left))
        if report.results and self.config.log_per_class_metrics:
            say(class_lines(report.results[REGULAR]))


class Bar:
    """A bar over the steps of an epoch that vanishes when the epoch's line comes."""

    def __init__(self, style: str, title: str, steps: int) -> None:
        self._open = ExitStack()
        if style == "rich":
            from rich import progress as rich

            shown = (rich.BarColumn(), rich.MofNCompleteColumn(), rich.TimeRemainingColumn())
            columns = (rich.TextColumn("{task.description}"), *shown)
            progress = self._open.enter_context(rich.Progress(*columns, transient=True))
            task = progress.add_task(title, total=steps)
            self._advance: Callable[[], object] = lambda: progress.advance(task)
        else:
            bar = self._open.enter_context(tqdm(total=steps, desc=title, leave=False, unit="step"))
            self._advance = bar.update

    def advance(self) -> None:
        self._advance()

    def close(self) -> None:
        self._open.close()


def class_lines(result: EvaluationResult) -> str:
    """AP of each class, of masks where there are any, wrapped."""
    of_class = result.segm_per_class if result.has_masks else result.per_class
    cells = [
        f"{name} {'-' if value is None else f'{value:.3f}'}".replace(" ", "\0") for name, value in of_class.items()
    ]
    lines = textwrap.wrap(
        "  ".join(cells), 116, initial_indent="    ", subsequent_indent="    ", break_long_words=False
    )
    return "\n".join(lines).replace("\0", " ")


def epoch_line(report: EpochReport, config: TrainConfig, seconds_left: float) -> str:
    """The line of an epoch; an epoch without evaluation has no mAP."""
    width = len(str(config.epochs))
    parts = [f"epoch {report.epoch:{width}}/{config.epochs}", f"loss {report.losses.get('loss', 0):.3f}"]
    if "loss" in report.val_losses:
        parts.append(f"val {report.val_losses['loss']:.3f}")
    if report.results:
        shown, metric = report.results[REGULAR], "mAP_50_95"
        ema = f" (ema {score_of(report.results[EMA], metric):.3f})" if EMA in report.results else ""
        label, prefix = ("mask mAP", "segm_") if shown.has_masks else ("mAP", "")
        parts += [f"{label} {score_of(shown, metric):.3f}{ema}", f"{label}50 {shown[f'{prefix}mAP_50'] or 0:.3f}"]
        if shown.has_masks:
            parts.append(f"box mAP {shown[metric] or 0:.3f}")
        if config.best_metric != metric:
            scores = [f"{score_of(result, config.best_metric):.3f}" for result in report.results.values()]
            parts.append(f"{config.best_metric} {' / '.join(scores)}")
    if report.images_per_second:
        parts.append(f"{report.images_per_second:.1f} images/s")
    parts.append(f"{duration(seconds_left)} left" if seconds_left else "done")
    return "  ".join(parts) + ("  *" if report.improved else "")


def duration(seconds: float) -> str:
    """`45s`, `3m 20s`, `2h 05m`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02}s"
    return f"{whole // 3600}h {whole % 3600 // 60:02}m"
