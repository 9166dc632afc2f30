"""The names of all files a run writes."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rfdetr.errors import ConfigError, TrainingError
from rfdetr.files import write_yaml


@dataclass(frozen=True)
class RunDir:
    """A run's output folder."""

    path: Path

    @property
    def last(self) -> Path:
        return self.path / "checkpoint.pth"

    def numbered(self, epoch: int) -> Path:
        return self.path / f"checkpoint_{epoch}.pth"

    def states(self) -> list[Path]:
        """The states of the run that are there, newest first."""
        found = [(re.fullmatch(r"checkpoint_(\d+)\.pth", path.name), path) for path in self.path.glob("checkpoint_*")]
        numbered = sorted(((int(match[1]), path) for match, path in found if match), reverse=True)
        return [path for path in (self.last, *(path for _, path in numbered)) if path.exists()]

    def best(self, kind: str) -> Path:
        """The best weights of a kind: regular or ema."""
        return self.path / f"checkpoint_best_{kind}.pth"

    @property
    def best_total(self) -> Path:
        return self.path / "checkpoint_best_total.pth"

    def samples(self, epoch: int) -> Path:
        """Pictures of the validation split with predictions after so many epochs."""
        return self.path / "samples" / f"epoch_{epoch:04}.jpg"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.csv"

    @property
    def settings(self) -> Path:
        return self.path / "settings.yaml"

    @property
    def results(self) -> Path:
        """Metrics of the best weights."""
        return self.path / "metrics.json"

    def remove_leftovers(self) -> None:
        """Remove what a killed process has left half written."""
        for pattern in (".checkpoint*.part", ".metrics.*.part", ".settings.yaml.*.part", "samples/.epoch_*.part"):
            for path in self.path.glob(pattern):
                path.unlink(missing_ok=True)

    def write(self, path: Path, write: Callable[[Path], None]) -> None:
        """Let `write` make a file of the run.

        Raises:
            TrainingError: it cannot; says from where the run can go on.
        """
        try:
            write(path)
        except OSError as error:
            last = self.last
            kept = (
                f" {last} holds an earlier state, complete: go on from it with resume='auto'" if last.exists() else ""
            )
            raise TrainingError(f"{path}: cannot be written: {error.strerror or error}.{kept}") from None

    def write_settings(self, settings: Mapping[str, Any]) -> None:
        """The first file of a run.

        Raises:
            ConfigError: the folder cannot be written to.
        """
        try:
            write_yaml(self.settings, settings)
        except OSError as error:
            raise ConfigError(f"output_dir: cannot write to {self.path}: {error.strerror}") from None
