"""Two programs that do the same work, each in a process of its own, taking turns.

A benchmark script serves one side when it is started with `--serve SIDE ...`: for every line that comes in it does one
round of the work and calls `tell` with what it measured. Without `--serve` it starts the sides and asks them by turns,
so that a machine that gets slower gets slower for all of them.
"""

import json
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from typing_extensions import Self

RESULT = "result:"
"""Begins the lines that are meant for the other process."""


def tell(result: Any) -> None:
    """Hand a result to the process that asked for it."""
    print(RESULT, json.dumps(result), flush=True)


def rounds_asked_for() -> Iterator[None]:
    """One for each line that comes in."""
    for _ in sys.stdin:
        yield


class Side:
    """One of the programs, as a process that does a round of work when asked."""

    def __init__(self, python: str, script: str | Path, *arguments: object, log: Path | None = None) -> None:
        command = [python, str(script), "--serve", *map(str, arguments)]
        self.log = log.open("a") if log else None
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ask(self) -> Any:
        """What one round of the work gave."""
        assert self.process.stdin
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self.hear()

    def hear(self) -> Any:
        """The next result, which it tells without being asked."""
        assert self.process.stdout
        while not (line := self.process.stdout.readline()).startswith(RESULT):
            if not line:
                raise SystemExit(f"{self.process.args} ended")
        return json.loads(line.removeprefix(RESULT))

    def close(self) -> None:
        """Let it end: its next wait for a line finds none."""
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()
        if self.log:
            self.log.close()


def by_turns(sides: Mapping[str, Side], rounds: int) -> dict[str, list[float]]:
    """What each side measured, a number for each round; a round before them warms up."""
    found: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        for name, side in sides.items():
            measured = side.ask()
            if number:
                found[name].append(measured)
    return found


def median_ratio(numerators: Sequence[float], denominators: Sequence[float]) -> float:
    """The median of the ratios within a round each."""
    return statistics.median(a / b for a, b in zip(numerators, denominators, strict=True))


def spread(numbers: Sequence[float], digits: int = 2) -> str:
    """Median (least to greatest)."""
    low, middle, high = (f"{number:.{digits}f}" for number in (min(numbers), statistics.median(numbers), max(numbers)))
    return f"{middle} ({low} to {high})"
