"""What is known when an epoch ends."""

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
    rates: dict[str, float]
    """Learning rates of the last step: `lr` and `lr_encoder`."""
    losses: dict[str, float]
    """Means over the training steps."""
    images_per_second: float | None
    """Over the training part, loading included; None: all of it was trained before the run was resumed."""
    results: dict[str, EvaluationResult] = field(default_factory=dict)
    """Validation result by kind of weights; empty in an epoch without evaluation."""
    val_losses: dict[str, float] = field(default_factory=dict)
    """Losses of the regular weights on the validation split."""
    improved: list[str] = field(default_factory=list)
    """The kinds of weights that are better than ever."""

    def row(self, per_class: bool) -> dict[str, float | int | None]:
        """Flat values for metrics.csv and loggers: all that is the same when the run is repeated."""
        row: dict[str, float | int | None] = {"epoch": self.epoch, "step": self.step}
        row |= {f"train/{name}": value for name, value in {**self.rates, **self.losses}.items()}
        row |= {f"val/{name}": value for name, value in self.val_losses.items()}
        for kind, result in self.results.items():
            prefix = "val/" if kind == REGULAR else f"val/{kind}_"
            row |= {prefix + name: value for name, value in result.metrics.items()}
            if per_class:
                row |= {f"{prefix}AP/{name}": value for name, value in result.per_class.items()}
                row |= {f"{prefix}segm_AP/{name}": value for name, value in result.segm_per_class.items()}
        return row
