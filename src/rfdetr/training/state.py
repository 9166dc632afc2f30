"""The state of a run as one value: what is needed to go on as if it had never stopped.

Schedules, augmentation and random numbers are functions of (seed, epoch, step), so they need no state of their own.
"""

from dataclasses import asdict, dataclass, field
from typing import Any

from typing_extensions import Self


@dataclass
class Best:
    """The best validation score so far of one kind of weights."""

    score: float = 0.0
    step: int | None = None
    """The optimiser step it was reached at; None: never."""
    metrics: dict[str, Any] | None = None


@dataclass
class Progress:
    """Where a run stands. Epochs and steps count from 0 and name what comes next."""

    seed: int
    num_images: int
    """Of the training split."""
    images_per_step: int
    epoch: int = 0
    """Epochs whose evaluation is done, too."""
    step_in_epoch: int = 0
    """After the last step of an epoch it stays at the number of steps until the evaluation is done."""
    step: int = 0
    best: dict[str, Best] = field(default_factory=dict)
    """By kind of weights."""
    last_metrics: dict[str, Any] | None = None
    """Of the regular weights in the last evaluation."""
    watched: float | None = None
    """The score that early stopping wants to see improved, and the epoch (from 1) it was reached in."""
    watched_epoch: int = 0
    evaluated_epoch: int = 0
    """The last epoch (from 1) that counted for early stopping."""
    history: list[dict[str, Any]] = field(default_factory=list)
    """The rows of metrics.csv."""
    logger_ids: dict[str, str] = field(default_factory=dict)
    """Under which name each logger knows the run."""
    unreadable: dict[str, dict[int, str]] = field(default_factory=dict)
    """By split, the images that turned out to be unusable: row -> why."""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> Self:
        return cls(**{**state, "best": {kind: Best(**best) for kind, best in state["best"].items()}})

    def next_step(self) -> None:
        self.step += 1
        self.step_in_epoch += 1

    def next_epoch(self) -> None:
        self.epoch += 1
        self.step_in_epoch = 0
