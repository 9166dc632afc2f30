"""The checkpoint files of a run."""

from collections.abc import Mapping
from pathlib import Path

import lightning.pytorch as lightning

from rfdetr.classes import ClassTable
from rfdetr.config.runs import TrainConfig
from rfdetr.models.detector import Detector
from rfdetr.training.callbacks.validation import Validation
from rfdetr.training.epoch import EMA, REGULAR
from rfdetr.training.module import TrainingModule
from rfdetr.training.run_dir import RunDir
from rfdetr.weights.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from rfdetr.weights.names import to_published


class Checkpoints(lightning.Callback):
    """The state of the run after every epoch, numbered copies of it, and the best weights."""

    def __init__(self, validation: Validation, run_dir: RunDir, classes: ClassTable, config: TrainConfig) -> None:
        self.validation = validation
        self.run_dir = run_dir
        self.classes = classes
        self.config = config

    def on_train_epoch_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        report = self.validation.report
        if report is None or not isinstance(module, TrainingModule) or not trainer.is_global_zero:
            return
        if REGULAR in report.improved:
            self._save_weights(self.run_dir.best_regular, module.detector)
        if EMA in report.improved and module.ema:
            self._save_weights(self.run_dir.best_ema, module.ema.detector)
        state = self.run_state(trainer, module)
        save_checkpoint(self.run_dir.last, state)
        if report.epoch % self.config.checkpoint_interval == 0:
            save_checkpoint(self.run_dir.numbered(report.epoch), state)

    def on_fit_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        if isinstance(module, TrainingModule) and trainer.is_global_zero:
            self._choose_best(module)
        trainer.strategy.barrier()  # all processes go on with the best weights

    def _choose_best(self, module: TrainingModule) -> None:
        """Make sure of every file: weights that never scored are saved as they ended; then choose between the two."""
        best = module.progress.best
        if best.regular_metrics is None:
            self._save_weights(self.run_dir.best_regular, module.detector)
        if module.ema and best.ema_metrics is None:
            self._save_weights(self.run_dir.best_ema, module.ema.detector)
        use_ema = module.ema is not None and best.ema > best.regular
        source = self.run_dir.best_ema if use_ema else self.run_dir.best_regular
        save_checkpoint(self.run_dir.best_total, load_checkpoint(source))

    def run_state(self, trainer: lightning.Trainer, module: TrainingModule) -> Checkpoint:
        """The whole state of the run as one value."""
        run = {
            "progress": module.progress.to_dict(),
            "optimizer": trainer.optimizers[0].state_dict(),
            "ema_model": to_published(module.ema.detector.state_dict()) if module.ema else None,
        }
        return self._checkpoint(module.detector, run)

    def _save_weights(self, path: Path, detector: Detector) -> None:
        save_checkpoint(path, self._checkpoint(detector))

    def _checkpoint(self, detector: Detector, run: Mapping[str, object] | None = None) -> Checkpoint:
        return Checkpoint(detector.state_dict(), detector.config, self.classes, self.config.plain(), run)
