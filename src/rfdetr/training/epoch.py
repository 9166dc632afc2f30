"""What is known when an epoch ends; the callbacks fill it in and hand it on, in their order."""

from dataclasses import dataclass, field

from rfdetr.evaluation.results import EvaluationResult

# The weights themselves, and their moving average.
REGULAR, EMA = "regular", "ema"


@dataclass
class EpochReport:
    """One epoch."""

    epoch: int
    """Counted from 1."""
    step: int
    """Optimiser steps since the start of the run."""
    lr: float
    """Highest learning rate of the last step."""
    losses: dict[str, float]
    """Means over the training steps."""
    images_per_second: float
    """Over the training part, loading included."""
    results: dict[str, EvaluationResult] = field(default_factory=dict)
    """Validation result by kind of weights; empty in an epoch without evaluation."""
    val_losses: dict[str, float] = field(default_factory=dict)
    """Losses of the regular weights on the validation split."""
    improved: list[str] = field(default_factory=list)
    """The kinds of weights that are better than ever."""

    def row(self, per_class: bool) -> dict[str, float | int | None]:
        """Flat values for metrics.csv and loggers."""
        row: dict[str, float | int | None] = {"epoch": self.epoch, "step": self.step, "train/lr": self.lr}
        row["train/images_per_second"] = round(self.images_per_second, 3)
        row |= {f"train/{name}": value for name, value in self.losses.items()}
        row |= {f"val/{name}": value for name, value in self.val_losses.items()}
        for kind, result in self.results.items():
            prefix = "val/" if kind == REGULAR else f"val/{kind}_"
            row |= {prefix + name: value for name, value in result.metrics.items()}
            if per_class:
                row |= {f"{prefix}AP/{name}": value for name, value in result.per_class.items()}
                row |= {f"{prefix}segm_AP/{name}": value for name, value in result.segm_per_class.items()}
        return row
