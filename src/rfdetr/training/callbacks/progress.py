"""What a person sees of a run: a line per epoch, and on request a bar within it."""

import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import lightning.pytorch as lightning
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress
from tqdm import tqdm

from rfdetr.config.runs import TrainConfig
from rfdetr.console import say
from rfdetr.data.batches import EpochBatches
from rfdetr.training.callbacks.selection import score_of
from rfdetr.training.callbacks.validation import Validation
from rfdetr.training.epoch import EMA, REGULAR, EpochReport


class ProgressDisplay(lightning.Callback):
    """`epoch  3/30  loss 12.34  val 11.80  mAP 0.412 (ema 0.430)  mAP50 0.655  35.2 images/s  1m 40s left`.

    Of a segmentation model: `mask mAP 0.412 (ema 0.430)  mask mAP50 0.655  box mAP 0.471`.
    """

    def __init__(self, validation: Validation, config: TrainConfig, batches: EpochBatches) -> None:
        self.validation = validation
        self.config = config
        self.batches = batches
        self._epoch_seconds: list[float] = []
        self._started = 0.0
        self._bar: Bar | None = None

    def on_train_epoch_start(self, trainer: lightning.Trainer, module: Any) -> None:
        self._started = time.perf_counter()
        if self.config.progress_bar and trainer.is_global_zero:
            progress = module.progress
            title = f"epoch {progress.epoch + 1}/{self.config.epochs}"
            self._bar = Bar(str(self.config.progress_bar), title, self.batches.steps_per_epoch - progress.step_in_epoch)

    def on_train_batch_end(self, *_: Any, **__: Any) -> None:
        if self._bar:
            self._bar.advance()

    def on_train_epoch_end(self, trainer: lightning.Trainer, _: lightning.LightningModule) -> None:
        self._close_bar()
        report = self.validation.report
        if report is None or not trainer.is_global_zero:
            return
        self._epoch_seconds.append(time.perf_counter() - self._started)
        left = sum(self._epoch_seconds) / len(self._epoch_seconds) * (self.config.epochs - report.epoch)
        say(epoch_line(report, self.config.epochs, left))
        if trainer.should_stop and report.epoch < self.config.epochs:
            patience = self.config.early_stopping_patience
            say(f"stopped early: no better for {patience} evaluations (early_stopping_patience)")

    def on_exception(self, *_: Any) -> None:
        self._close_bar()

    def _close_bar(self) -> None:
        if self._bar:
            self._bar.close()
            self._bar = None


class Bar:
    """A bar over the steps of an epoch that vanishes when the epoch's line comes."""

    def __init__(self, style: str, title: str, steps: int) -> None:
        self._open = ExitStack()
        if style == "rich":
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            progress = self._open.enter_context(RichProgress(*columns, transient=True))
            task = progress.add_task(title, total=steps)
            self._advance: Callable[[], object] = lambda: progress.advance(task)
        else:
            bar = self._open.enter_context(tqdm(total=steps, desc=title, leave=False, unit="step"))
            self._advance = bar.update

    def advance(self) -> None:
        self._advance()

    def close(self) -> None:
        self._open.close()


def epoch_line(report: EpochReport, epochs: int, seconds_left: float) -> str:
    """The line of an epoch; an epoch without evaluation has no mAP."""
    width = len(str(epochs))
    parts = [f"epoch {report.epoch:{width}}/{epochs}", f"loss {report.losses.get('loss', 0):.3f}"]
    if "loss" in report.val_losses:
        parts.append(f"val {report.val_losses['loss']:.3f}")
    if report.results:
        shown = report.results[REGULAR]
        ema = f" (ema {score_of(report.results[EMA]):.3f})" if EMA in report.results else ""
        label, prefix = ("mask mAP", "segm_") if shown.has_masks else ("mAP", "")
        parts += [f"{label} {score_of(shown):.3f}{ema}", f"{label}50 {shown[f'{prefix}mAP_50'] or 0:.3f}"]
        if shown.has_masks:
            parts.append(f"box mAP {shown['mAP_50_95'] or 0:.3f}")
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
