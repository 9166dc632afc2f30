"""Numbers of every epoch: into metrics.csv and to the loggers."""

import csv
import io
from typing import Any

import lightning.pytorch as lightning

from rfdetr.config.runs import TrainConfig
from rfdetr.files import write_text
from rfdetr.training.callbacks.validation import Validation
from rfdetr.training.run_dir import RunDir
from rfdetr.training.state import Progress


class Metrics(lightning.Callback):
    """Adds the epoch's row to the history of the run, which metrics.csv shows whole."""

    def __init__(self, validation: Validation, progress: Progress, run_dir: RunDir, config: TrainConfig) -> None:
        self.validation = validation
        self.progress = progress
        self.run_dir = run_dir
        self.config = config

    def on_train_epoch_end(self, trainer: lightning.Trainer, _: lightning.LightningModule) -> None:
        report = self.validation.report
        if report is None:
            return
        row = report.row(self.config.log_per_class_metrics)
        self.progress.history.append(row)
        if not trainer.is_global_zero:
            return
        write_text(self.run_dir.metrics, as_csv(self.progress.history))
        known = {name: value for name, value in row.items() if value is not None and name != "step"}
        for logger in trainer.loggers:
            logger.log_metrics(known, step=report.step)


def as_csv(rows: list[dict[str, Any]]) -> str:
    """Rows with a common header; what a row lacks is left empty."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
