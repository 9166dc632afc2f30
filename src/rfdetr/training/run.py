"""One run, from config to result, top to bottom."""

import copy
import secrets
import signal
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from rfdetr.config.model import ModelSettings
from rfdetr.config.runs import TrainConfig
from rfdetr.console import say, warn
from rfdetr.data.annotations import Annotations
from rfdetr.data.unreadable import of_all_processes
from rfdetr.distributed import barrier, broadcast, gathered, rank_and_world_size
from rfdetr.errors import Interrupted, TrainingError
from rfdetr.files import write_atomically, write_json
from rfdetr.inference.predictor import predict
from rfdetr.models.detector import Detector
from rfdetr.report.ground_truth import pick_samples
from rfdetr.report.samples import sample_sheet
from rfdetr.training.checkpoints import Checkpoints
from rfdetr.training.display import Display
from rfdetr.training.epoch import EMA, REGULAR, EpochReport
from rfdetr.training.history import write_csv
from rfdetr.training.loggers import Loggers, open_loggers
from rfdetr.training.resume import check_resumable, find_run, restore_best, say_changes
from rfdetr.training.run_dir import RunDir
from rfdetr.training.selection import better_kind, is_stalled, select
from rfdetr.training.setup import effective_settings, epoch_batches, in_training, open_loader
from rfdetr.training.signals import StopSignals
from rfdetr.training.state import Best, Progress
from rfdetr.training.step import TrainingStep, Wishes
from rfdetr.training.unreadable import UnreadableImages
from rfdetr.training.validation import evaluate_weights
from rfdetr.weights.checkpoint import load_checkpoint

SAMPLE_PICTURES = 8
SAMPLE_THRESHOLD = 0.3


@dataclass(frozen=True)
class TrainingResult:
    """What a run leaves behind."""

    output_dir: Path
    best_checkpoint: Path
    """The better of regular and averaged weights on the validation split."""
    metrics: dict[str, Any]
    """Validation metrics of these weights; with `run_test`, those of the test split under `test`."""
    history: list[dict[str, Any]]
    """The rows of metrics.csv."""


def train(
    detector: Detector,
    train_split: Annotations,
    valid_split: Annotations,
    config: TrainConfig,
    model_settings: ModelSettings,
    device: torch.device,
    test_split: Annotations | None = None,
) -> TrainingResult:
    """Train the detector in place (its weights end as the last step left them) and leave the best in a file.

    The best weights are evaluated on the test split, if there is one.

    In a torch.distributed process group the processes share the work, and the first one writes the files. The model's
    settings are only written down, beside those of the run.

    Raises:
        ConfigError: a setting that the run cannot start or go on with.
        TrainingError: the loss stopped being finite, or a file cannot be written.
        ImageError: more than `max_bad_images` images cannot be read; the state is saved.
        Interrupted: by a signal; the state is saved.
    """
    with in_training(detector, config, device):
        run = Run(detector, train_split, valid_split, config, device)
        try:
            run.open(model_settings)
            with run.signals:
                while run.progress.epoch < config.epochs and not is_stalled(run.progress, config):
                    run.close_epoch(run.train_epoch())
                run.checkpoints.wait()
            return run.finish(test_split)
        except BaseException as error:
            run.close(failed=not isinstance(error, Interrupted))
            if isinstance(error, Interrupted):
                barrier()  # the first process may need time to close its loggers; nobody leaves before it
            raise


class Run:
    """A run under way: its parts, and what happens in which order."""

    def __init__(
        self,
        detector: Detector,
        train_split: Annotations,
        valid_split: Annotations,
        config: TrainConfig,
        device: torch.device,
    ) -> None:
        self.train_split = train_split
        self.valid_split = valid_split
        self.config = config
        self.device = device
        self.signals = StopSignals()
        self.run_dir = RunDir(Path(config.output_dir))
        self.is_main = rank_and_world_size()[0] == 0
        classes = train_split.classes
        # Processes may have no disk in common, so the first one reads for all; and its seed counts.
        seed = broadcast(secrets.randbits(31) if config.seed is None else config.seed)
        found = broadcast(find_run(config, self.run_dir) if self.is_main else None)
        batches = epoch_batches(train_split, detector.config, config, seed)
        self.progress = Progress(seed, len(train_split), batches.images_per_step)
        if found:
            path, earlier = found
            check_resumable(path, earlier, config, detector.config, classes, self.progress)
            self.progress = Progress.from_dict((earlier.run or {})["progress"])
            batches = epoch_batches(train_split, detector.config, config, self.progress.seed)
            detector.load_state_dict(earlier.weights)
            say_changes(path, earlier.settings, config, self.progress, batches.steps_per_epoch)
        self.is_resumed = bool(found)
        self.batches = batches
        self.step = TrainingStep(detector, config, self.progress, batches.steps_per_epoch, device)
        if found:
            self.step.load_state(earlier.run or {})
        self.checkpoints = Checkpoints(self.run_dir, classes, config, self.step)
        self.loader = open_loader(train_split, batches, detector.config, config, device)
        self.unreadable = UnreadableImages(self.progress.unreadable, config.max_bad_images)
        self.display = Display(config, batches.steps_per_epoch)
        self.loggers: Loggers | None = None
        self._saved_at = time.monotonic()

    def open(self, model_settings: ModelSettings) -> None:
        """Leave the first files and say what is going to happen.

        Raises:
            ImageError: the run has already found too many images that cannot be read.
        """
        self.unreadable.look_again(self.train_split)
        if self.is_main:
            self._open(model_settings)
        self.progress.best = broadcast(self.progress.best)

    def _open(self, model_settings: ModelSettings) -> None:
        if self.run_dir.last.exists() and not self.is_resumed:
            warn(f"{self.run_dir.path} holds an earlier run; files of the same names will be replaced")
        settings = effective_settings(self.config, model_settings, self.detector, self.progress.seed)
        self.run_dir.write_settings(settings)
        self.run_dir.remove_leftovers()
        if self.is_resumed:
            restore_best(self.checkpoints, self.progress)
            self._write_history()
        for remark in self.config.remarks():
            warn(remark)
        if self.config.pin_memory and self.device.type != "cuda":
            warn(f"pin_memory=True has no effect: the {self.device.type} needs no transfers")
        say(self._opening())
        self.loggers = open_loggers(self.config, self.run_dir, settings, self.progress.logger_ids, self.progress.step)
        for row in self.progress.history:  # a killed process may not have got them out; known ones are skipped
            self.loggers.log(row, row["step"])
        if not self.progress.step:
            self._show_samples(0)

    @property
    def detector(self) -> Detector:
        return self.step.detector

    def train_epoch(self) -> EpochReport:
        """The steps of the epoch that are still to do, and what is known after them.

        Raises:
            Interrupted: the state is saved.
        """
        self.batches.epoch, self.batches.start_step = self.progress.epoch, self.progress.step_in_epoch
        first_step, started = self.progress.step, time.perf_counter()
        self.display.open_epoch(self.progress)
        try:
            if self.progress.step_in_epoch < self.batches.steps_per_epoch:
                for batches in self.loader:
                    granted = self.step(batches, self._wishes)
                    self.display.advance()
                    self.checkpoints.look()
                    if granted.note:
                        found = of_all_processes(self.loader.take_unreadable())
                        self.unreadable.add(self.train_split, self._save_now, found)
                    if granted.stop:
                        self._stop()
                    if self._is_due(granted):
                        self._save()
        finally:
            self.display.close_bar()
        losses = self.step.mean_losses()  # waits for the device, so the clock is read after it
        images = (self.progress.step - first_step) * self.batches.images_per_step
        return EpochReport(
            epoch=self.progress.epoch + 1,
            step=self.progress.step,
            rates=self.step.rates(),
            losses=losses,
            images_per_second=images / (time.perf_counter() - started) if images else None,
        )

    def close_epoch(self, report: EpochReport) -> None:
        """Evaluate where it is due, and leave the epoch's numbers and files.

        Raises:
            Interrupted: the state is saved, in which this epoch is trained and not evaluated.
        """
        if any(gathered(self.signals.is_received())):
            self._stop()
        if report.epoch % self.config.eval_interval == 0 or report.epoch == self.config.epochs:
            self._evaluate(report)
        select(report, self.progress, self.config)
        row = report.row(self.config.log_per_class_metrics)
        self.progress.history.append(row)
        self.progress.next_epoch()
        self.step.forget_losses()
        self.checkpoints.save_epoch(report)
        self._saved_at = time.monotonic()
        if self.is_main:
            self._write_history()
            if self.loggers:
                self.loggers.log({**row, "train/images_per_second": report.images_per_second}, report.step)
            self._show_samples(report.epoch)
        self.display.close_epoch(report)
        if line := self.unreadable.line():
            say(f"    {line}")

    def _evaluate(self, report: EpochReport) -> None:
        detectors = {REGULAR: self.detector}
        if self.step.ema:
            detectors[EMA] = self.step.ema.detector
        compute_loss = self.config.compute_val_loss
        found = evaluate_weights(
            detectors,
            self.valid_split,
            self.config,
            self.device,
            compute_loss,
            self.signals.is_received,
            partial(self.unreadable.replace, self.valid_split, self._save_now),
        )
        if found is None:
            self._stop()
            return
        report.results, report.val_losses = found
        self.progress.last_metrics = report.results[REGULAR].to_json()
        for kind, result in report.results.items():
            if result.num_not_finite:
                warn(
                    f"epoch {report.epoch}: {result.num_not_finite} detections of the {kind} weights are not finite; "
                    f"they do not count as best{' (fp16_eval: try False)' if self.config.fp16_eval else ''}"
                )

    def finish(self, test_split: Annotations | None) -> TrainingResult:
        """Choose the best weights, write them down and test them."""
        if is_stalled(self.progress, self.config):
            say(f"stopped early: no better for {self.config.early_stopping_patience} epochs (early_stopping_patience)")
        self.checkpoints.finish()
        metrics = self._best_metrics()
        if test_split is not None:
            metrics["test"] = self._test(test_split)
        if self.is_main:
            self.run_dir.write(self.run_dir.results, lambda path: write_json(path, metrics))
        self.close()
        return TrainingResult(self.run_dir.path, self.run_dir.best_total, metrics, self.progress.history)

    def _test(self, split: Annotations) -> dict[str, Any]:
        """Metrics of the best weights on the test split, with the losses under `losses`; logged and said, too."""
        detector = copy.deepcopy(self.detector)
        # The processes may have no disk in common.
        detector.load_state_dict(broadcast(load_checkpoint(self.run_dir.best_total).weights if self.is_main else {}))
        compute_loss = self.config.compute_test_loss
        found = evaluate_weights(
            {REGULAR: detector},
            split,
            self.config,
            self.device,
            compute_loss,
            note_unreadable=partial(self.unreadable.replace, split, self._save_now),
        )
        if found is None:
            raise RuntimeError("nothing interrupts this evaluation")
        (result, *_), losses = found[0].values(), found[1]
        say(f"test split: {result.table(self.config.log_per_class_metrics)}")
        if self.loggers:
            per_class = {f"AP/{name}": value for name, value in result.per_class.items()}
            row = {**losses, **result.metrics, **(per_class if self.config.log_per_class_metrics else {})}
            self.loggers.log({f"test/{name}": value for name, value in row.items()}, self.progress.step)
        return {**result.to_json(), "losses": losses} if self.config.compute_test_loss else result.to_json()

    def close(self, failed: bool = False) -> None:
        try:
            self.checkpoints.wait()
        except TrainingError as error:  # the run has ended by another one, which counts
            warn(str(error))
        finally:
            if self.loggers:
                self.loggers.close(failed)

    def _best_metrics(self) -> dict[str, Any]:
        """Of the weights in `checkpoint_best_total.pth`: where none ever scored, the last regular ones."""
        best = self.progress.best.get(better_kind(self.progress), Best())
        return dict(best.metrics or self.progress.last_metrics or {})

    def _wishes(self) -> Wishes:
        config = self.config
        minutes = config.checkpoint_every_minutes
        is_time = minutes is not None and time.monotonic() - self._saved_at > 60 * minutes
        return Wishes(stop=self.signals.is_received(), save=is_time and self.is_main, note=self.loader.has_unreadable)

    def _is_due(self, granted: Wishes) -> bool:
        every = self.config.checkpoint_every_steps
        return granted.save or bool(every and self.progress.step % every == 0)

    def _save(self) -> None:
        self.checkpoints.save()
        self._saved_at = time.monotonic()

    def _save_now(self) -> None:
        """And wait until it is written: what follows says that it is."""
        self._save()
        self.checkpoints.wait()

    def _stop(self) -> None:
        """Raises:
        Interrupted: always, after saving.
        """
        self._save_now()
        number = next((number for number in gathered(self.signals.received) if number), signal.SIGTERM)
        where = f"epoch {self.progress.epoch + 1}, step {self.progress.step_in_epoch} of {self.batches.steps_per_epoch}"
        say(
            f"stopped by {signal.Signals(number).name} after {where}; the state is in {self.run_dir.last}. Go on with "
            f'resume="auto", or: rfdetr train --config {self.run_dir.settings} --resume auto'
        )
        raise Interrupted(128 + number)

    def _write_history(self) -> None:
        self.run_dir.write(self.run_dir.metrics, lambda path: write_csv(path, self.progress.history))

    def _show_samples(self, epoch: int) -> None:
        """Some pictures of the validation split with what the weights find on them, where they are due."""
        if not self.config.sample_interval or epoch % self.config.sample_interval:
            return
        detector = self.step.ema.detector if self.step.ema else self.detector
        classes = self.train_split.classes
        sheet = sample_sheet(
            lambda image: predict(detector, image, classes, SAMPLE_THRESHOLD),
            self.valid_split,
            pick_samples(self.valid_split, SAMPLE_PICTURES),
        )
        if sheet is None:
            return
        path = self.run_dir.samples(epoch)
        self.run_dir.write(path, lambda path: write_atomically(path, lambda part: sheet.save(part, format="JPEG")))
        if self.loggers:
            self.loggers.picture("samples", path, self.progress.step)

    def _opening(self) -> str:
        """The first line of a run."""
        model = self.detector.config
        parts = [
            f"RF-DETR {model.size}",
            f"{model.resolution} x {model.resolution} pixels",
            f"{len(self.train_split.classes)} classes",
            f"{len(self.train_split)} training and {len(self.valid_split)} validation images",
            f"{self.batches.steps_per_epoch} steps of {self.batches.images_per_step} images per epoch",
            f"seed {self.progress.seed}",
        ]
        return ", ".join(parts)
