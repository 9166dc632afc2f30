"""The checkpoint files of a run."""

import os
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

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
from rfdetr.weights.checkpoint import Checkpoint, save_checkpoint


class Checkpoints:
    """The state of the run, numbered copies of it, and the best weights.

    They are written beside the training, from a copy that lives as long as that takes; the next copy waits for it.
    The state is written first: whatever is lost when the process is killed between two files can be made from it.
    """

    def __init__(self, run_dir: RunDir, classes: ClassTable, config: TrainConfig, step: TrainingStep) -> None:
        self.run_dir = run_dir
        self.classes = classes
        self.config = config
        self.step = step
        self.is_writer = rank_and_world_size()[0] == 0
        self._writer = ThreadPoolExecutor(1, "checkpoints")
        self._writing: Future[None] | None = None

    def save(self, numbered: Path | None = None, improved: Sequence[str] = ()) -> None:
        """Start to write `checkpoint.pth`, before it the same as a numbered file, and after it better weights.

        All ranks call this; the first one writes.

        Raises:
            TrainingError: the state is of no use any more, or an earlier one could not be written; the file on the
                disk is as it was.
        """
        self._raise_unless_finite()
        run = {"progress": self.step.progress.to_dict(), **self.step.state()}
        if not self.is_writer:
            return
        self.wait()  # before the copy: there is never a second one
        state = {numbered or self.run_dir.last: self._checkpoint(self.step.detector, run)}
        best = {self.run_dir.best(kind): self._best_checkpoint(kind) for kind in improved}
        self._writing = self._writer.submit(self._write, _copies_on_host({**state, **best}), numbered)

    def _write(self, files: dict[Path, Checkpoint], numbered: Path | None) -> None:
        for path, content in files.items():
            self._write_one(path, content)
            if path == numbered:
                self.run_dir.write(self.run_dir.last, lambda path: _link_or_copy(numbered, path))

    def _write_one(self, path: Path, content: Checkpoint) -> None:
        self.run_dir.write(path, lambda path: save_checkpoint(path, content))

    def wait(self) -> None:
        """Until all is written.

        Raises:
            TrainingError: it cannot be; the old file is as it was.
        """
        if self._writing is not None:
            writing, self._writing = self._writing, None
            writing.result()

    def look(self) -> None:
        """Without waiting.

        Raises:
            TrainingError: what is being written cannot be.
        """
        if self._writing is not None and self._writing.done():
            self.wait()

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
        self.save(self.run_dir.numbered(report.epoch) if is_numbered else None, report.improved)

    def save_best(self, kind: str) -> None:
        """Write the present weights as the best of their kind, at once."""
        self._write_one(self.run_dir.best(kind), self._best_checkpoint(kind))

    def finish(self) -> None:
        """Make sure of every file: weights that never scored are saved as they ended; then choose between the two."""
        if not self.is_writer:
            return
        self.wait()
        for kind in (REGULAR, EMA) if self.step.ema else (REGULAR,):
            if self.step.progress.best.get(kind, Best()).step is None:
                self.save_best(kind)
        best = self.run_dir.best(better_kind(self.step.progress))
        self.run_dir.write(self.run_dir.best_total, lambda path: _link_or_copy(best, path))

    def _best_checkpoint(self, kind: str) -> Checkpoint:
        progress = self.step.progress
        best = progress.best.get(kind, Best())
        detector = self.step.ema.detector if kind == EMA and self.step.ema else self.step.detector
        return self._checkpoint(detector, {"step": progress.step, "metrics": best.metrics})

    def _checkpoint(self, detector: Detector, run: Mapping[str, Any]) -> Checkpoint:
        return Checkpoint(detector.state_dict(), detector.config, self.classes, self.config.plain(), run)


def state_bytes(detector: Detector, config: TrainConfig) -> int:
    """Of the state of a run: weights, moments, average. The detector is as `in_training` makes it."""
    trained = sum(parameter.nbytes for parameter in detector.parameters() if parameter.requires_grad)
    return (1 + config.use_ema) * weights_bytes(detector) + 2 * trained


def copy_bytes(detector: Detector, config: TrainConfig, device: torch.device) -> int:
    """Of the copy that a state is written from while training goes on, where that shares the memory of the host."""
    return 0 if device.type == "cuda" else state_bytes(detector, config)


def weights_bytes(detector: Detector) -> int:
    return sum(tensor.nbytes for tensor in detector.state_dict().values())


def _copies_on_host(files: Mapping[Path, Checkpoint]) -> dict[Path, Checkpoint]:
    """The same with tensors that no step changes; what the files have in common is copied once."""
    storages: dict[int, torch.UntypedStorage] = {}
    return {
        path: replace(content, weights=copied(content.weights, storages), run=copied(content.run, storages))
        for path, content in files.items()
    }


def copied(value: Any, storages: dict[int, torch.UntypedStorage]) -> Any:
    """The same on the host, through nested containers; `storages` holds the copies so far, by address of the first."""
    if isinstance(value, dict):
        return {key: copied(item, storages) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(copied(item, storages) for item in value)
    if not isinstance(value, Tensor):
        return value
    held = value.untyped_storage()
    if held.data_ptr() not in storages:
        storages[held.data_ptr()] = torch.UntypedStorage(held.nbytes()).copy_(held)
    copy = torch.empty(0, dtype=value.dtype)
    return copy.set_(storages[held.data_ptr()], value.storage_offset(), value.shape, value.stride())


def _link_or_copy(source: Path, path: Path) -> None:
    """A second name costs nothing, and as files are replaced and never written into, it stays what it is."""

    def link(temporary: Path) -> None:
        temporary.unlink()
        try:
            os.link(source, temporary)
        except OSError:  # a file system without links
            shutil.copyfile(source, temporary)

    write_atomically(path, link)
