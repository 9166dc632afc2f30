"""The checkpoint files of a run."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rfdetr.classes import ClassTable
from rfdetr.config.runs import TrainConfig
from rfdetr.distributed import rank_and_world_size
from rfdetr.errors import TrainingError
from rfdetr.files import write_atomically
from rfdetr.models.detector import Detector
from rfdetr.training.epoch import EMA, REGULAR, EpochReport
from rfdetr.training.run_dir import RunDir
from rfdetr.training.selection import better_kind
from rfdetr.training.state import Best
from rfdetr.training.step import TrainingStep
from rfdetr.weights.checkpoint import Checkpoint, load_checkpoint, save_checkpoint


class Checkpoints:
    """The state of the run, numbered copies of it, and the best weights.

    The state is written first: whatever is lost when the process is killed between two files can be made from it.
    """

    def __init__(self, run_dir: RunDir, classes: ClassTable, config: TrainConfig, step: TrainingStep) -> None:
        self.run_dir = run_dir
        self.classes = classes
        self.config = config
        self.step = step
        self.is_writer = rank_and_world_size()[0] == 0

    def save(self, numbered: Path | None = None) -> None:
        """Write `checkpoint.pth`, and before it the same as a numbered file. All ranks call this; the first one writes.

        Raises:
            TrainingError: it cannot be written, or is of no use any more; the old file is as it was.
        """
        self._raise_unless_finite()
        run = {"progress": self.step.progress.to_dict(), **self.step.state()}
        if self.is_writer:
            state = self._checkpoint(self.step.detector, run)
            self.run_dir.write(numbered or self.run_dir.last, lambda path: save_checkpoint(path, state))
            if numbered:
                self.run_dir.write(self.run_dir.last, lambda path: _copy(numbered, path))

    def _raise_unless_finite(self) -> None:
        """The next step would find its loss so, too late for the state that lies on the disk."""
        if not all(tensor.isfinite().all() for tensor in self.step.detector.state_dict().values()):
            last = self.run_dir.last
            raise TrainingError(
                f"the weights are no longer finite after step {self.step.progress.step}, so they are not saved. "
                "Try a lower lr, clip_max_norm=0.1 or precision='32'"
                + (f"; an earlier state is in {last}" if last.exists() else "")
            )

    def save_epoch(self, report: EpochReport) -> None:
        """Write what an epoch leaves: the state, from time to time a numbered copy of it, and better weights."""
        is_numbered = report.epoch % self.config.checkpoint_interval == 0
        self.save(self.run_dir.numbered(report.epoch) if is_numbered else None)
        for kind in report.improved if self.is_writer else ():
            self.save_best(kind)

    def save_best(self, kind: str) -> None:
        """The present weights as the best of their kind."""
        progress = self.step.progress
        best = progress.best.get(kind, Best())
        run = {"step": progress.step, "metrics": best.metrics}
        state = self._checkpoint(self._detector(kind), run)
        self.run_dir.write(self.run_dir.best(kind), lambda path: save_checkpoint(path, state))

    def finish(self) -> None:
        """Make sure of every file: weights that never scored are saved as they ended; then choose between the two."""
        if not self.is_writer:
            return
        for kind in (REGULAR, EMA) if self.step.ema else (REGULAR,):
            if self.step.progress.best.get(kind, Best()).step is None:
                self.save_best(kind)
        best = load_checkpoint(self.run_dir.best(better_kind(self.step.progress)))
        self.run_dir.write(self.run_dir.best_total, lambda path: save_checkpoint(path, best))

    def _detector(self, kind: str) -> Detector:
        return self.step.ema.detector if kind == EMA and self.step.ema else self.step.detector

    def _checkpoint(self, detector: Detector, run: Mapping[str, Any]) -> Checkpoint:
        return Checkpoint(detector.state_dict(), detector.config, self.classes, self.config.plain(), run)


def _copy(source: Path, path: Path) -> None:
    """A second name costs nothing, and as files are replaced and never written into, it stays what it is."""

    def link(temporary: Path) -> None:
        temporary.unlink()
        try:
            os.link(source, temporary)
        except OSError:  # a file system without links
            shutil.copyfile(source, temporary)

    write_atomically(path, link)
