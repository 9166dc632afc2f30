"""The state of a run as one value: what is needed to go on as if it had never stopped.

Schedules, augmentation and random numbers are functions of (seed, epoch, step), so they need no state of their own.
"""

from dataclasses import asdict, dataclass, field
from typing import Any

from typing_extensions import Self


@dataclass
class BestScores:
    """The best validation score so far of each kind of weights, and the patience of early stopping."""

    regular: float = 0.0
    ema: float = 0.0
    regular_metrics: dict[str, Any] | None = None
    ema_metrics: dict[str, Any] | None = None
    watched: float | None = None
    evaluations_without_improvement: int = 0


@dataclass
class Progress:
    """Where a run stands. Epochs and steps count from 0 and name what comes next."""

    seed: int
    epoch: int = 0
    step_in_epoch: int = 0
    step: int = 0
    best: BestScores = field(default_factory=BestScores)
    history: list[dict[str, Any]] = field(default_factory=list)
    """The rows of metrics.csv."""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> Self:
        return cls(**{**state, "best": BestScores(**state["best"])})

    def next_step(self, steps_per_epoch: int) -> None:
        self.step += 1
        self.step_in_epoch += 1
        if self.step_in_epoch == steps_per_epoch:
            self.step_in_epoch = 0
            self.epoch += 1
