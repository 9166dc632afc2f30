"""What is wrong with a dataset: each kind of problem once, with its count and a few examples."""

import reprlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from rfdetr.config.base import report
from rfdetr.console import warn
from rfdetr.errors import DatasetError

Severity = Literal["error", "warning"]

_EXAMPLES = 3  # per kind of problem
_LONGEST = 60  # characters of a value shown in a message


@dataclass(frozen=True)
class Problem:
    """An error keeps the dataset from being used; a warning says what was left out or mended."""

    severity: Severity
    file: str
    """The file or folder that it was found in; of several, the first."""
    message: str

    def __str__(self) -> str:
        return f"{self.file}: {self.message}"


@dataclass
class _Kind:
    file: str
    count: int = 0
    examples: list[str] = field(default_factory=list)


class Problems:
    """Collects problems while files are read, millions of them in the memory of a few."""

    def __init__(self) -> None:
        self._kinds: dict[tuple[Severity, str, str], _Kind] = {}

    def error(self, file: Path | str, kind: str, example: str | None = None, group: Path | str | None = None) -> None:
        """One more problem of a kind. Those of a kind and `group` (by default, the file) become one line."""
        self._add("error", file, kind, example, group)

    def warning(self, file: Path | str, kind: str, example: str | None = None, group: Path | str | None = None) -> None:
        self._add("warning", file, kind, example, group)

    def _add(
        self, severity: Severity, file: Path | str, kind: str, example: str | None, group: Path | str | None
    ) -> None:
        found = self._kinds.setdefault((severity, str(group or file), kind), _Kind(str(file)))
        found.count += 1
        if example is not None and len(found.examples) < _EXAMPLES:
            found.examples.append(example)

    def extend(self, others: Iterable[Problem]) -> None:
        for other in others:
            self._kinds.setdefault((other.severity, other.file, other.message), _Kind(other.file)).count += 1

    @property
    def has_errors(self) -> bool:
        return any(severity == "error" for severity, _, _ in self._kinds)

    @property
    def found(self) -> list[Problem]:
        """Errors first, else in the order in which the kinds came up."""
        problems = [
            Problem(severity, kind.file, _line(text, kind)) for (severity, _, text), kind in self._kinds.items()
        ]
        return sorted(problems, key=lambda problem: problem.severity != "error")


def _line(text: str, kind: _Kind) -> str:
    if not kind.examples:
        return text
    more = ", ..." if kind.count > len(kind.examples) else ""
    return f"{text} ({kind.count}): {', '.join(kind.examples)}{more}"


def raise_errors(problems: Iterable[Problem]) -> None:
    """Raises:
    DatasetError: names all errors among the problems, file by file.
    """
    by_file: dict[str, list[str]] = {}
    for problem in problems:
        if problem.severity == "error":
            by_file.setdefault(problem.file, []).append(problem.message)
    if by_file:
        raise DatasetError("\n".join(report(file, messages) for file, messages in by_file.items()))


def brief(value: Any) -> str:
    """A value of a file, shortened."""
    text = reprlib.repr(value)  # repr() of hostile values is endless, or too deep
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "..."


def settle(problems: Iterable[Problem]) -> None:
    """Say the warnings, to which errors may refer, then raise the errors.

    Raises:
        DatasetError: names all errors.
    """
    found = list(problems)
    for problem in found:
        if problem.severity == "warning":
            warn(str(problem))
    raise_errors(found)
