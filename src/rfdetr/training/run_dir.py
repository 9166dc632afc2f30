"""The names of all files a run writes."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rfdetr.errors import ConfigError
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

    @property
    def best_regular(self) -> Path:
        return self.path / "checkpoint_best_regular.pth"

    @property
    def best_ema(self) -> Path:
        return self.path / "checkpoint_best_ema.pth"

    @property
    def best_total(self) -> Path:
        return self.path / "checkpoint_best_total.pth"

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

    def write_settings(self, settings: Mapping[str, Any]) -> None:
        """The first file of a run.

        Raises:
            ConfigError: the folder cannot be written to.
        """
        try:
            write_yaml(self.settings, settings)
        except OSError as error:
            raise ConfigError(f"output_dir: cannot write to {self.path}: {error.strerror}") from None
