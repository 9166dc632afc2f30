"""What a COCO annotation file must hold, and the one report of all that is wrong with it."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rfdetr.config.base import report
from rfdetr.errors import DatasetError

Row = dict[str, Any]

_EXAMPLES = 3  # per kind of problem
_LONGEST = 60  # characters of a value shown in a message


class Problems:
    """Collects what is wrong with an annotation file: each kind of problem once, with its count and a few examples."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.lines: list[str] = []

    def add(self, kind: str, examples: Sequence[str]) -> None:
        """Nothing happens without examples."""
        if examples:
            more = ", ..." if len(examples) > _EXAMPLES else ""
            self.lines.append(f"{kind} ({len(examples)}): {', '.join(examples[:_EXAMPLES])}{more}")

    def raise_if_any(self) -> None:
        if self.lines:
            raise DatasetError(report(str(self.file), self.lines))


@dataclass(frozen=True)
class Field:
    """A key of the entries of a table. An optional one may be absent or null."""

    name: str
    is_valid: Callable[[Any], bool]
    meaning: str
    required: bool = True

    def accepts(self, row: Row) -> bool:
        value = row.get(self.name)
        return self.is_valid(value) if value is not None else not self.required


def is_whole(value: Any) -> bool:
    return type(value) is int and -(2**63) <= value < 2**63


def _is_side(value: Any) -> bool:
    return type(value) in (int, float) and 0 < value < 2**31 and value == int(value)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _is_area(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value) and value >= 0


def _is_box(value: Any) -> bool:
    if type(value) is not list or len(value) != 4:
        return False
    return all(type(number) in (int, float) and math.isfinite(number) for number in value) and min(value[2:]) >= 0


FIELDS = {
    "images": (
        Field("id", is_whole, "a whole number"),
        Field("file_name", _is_text, "a file name"),
        Field("width", _is_side, "a positive whole number"),
        Field("height", _is_side, "a positive whole number"),
    ),
    "annotations": (
        Field("id", is_whole, "a whole number"),
        Field("image_id", is_whole, "a whole number"),
        Field("category_id", is_whole, "a whole number"),
        Field("bbox", _is_box, "[x, y, width, height] in finite numbers, width and height not negative"),
        Field("area", _is_area, "a finite number, not negative", required=False),
        Field("iscrowd", lambda value: value in (0, 1), "0 or 1", required=False),
    ),
    "categories": (
        Field("id", is_whole, "a whole number"),
        Field("name", _is_text, "a name"),
    ),
}


def well_formed(table: str, rows: list[Any], problems: Problems) -> list[Row]:
    """The entries of a table whose fields are all valid."""
    bad: set[int] = set()
    not_objects = [index for index, row in enumerate(rows) if not isinstance(row, dict)]
    problems.add(f"entries of {table} that are not objects", [f"entry {index + 1}" for index in not_objects])
    bad.update(not_objects)
    for field in FIELDS[table]:
        wrong = [index for index, row in enumerate(rows) if isinstance(row, dict) and not field.accepts(row)]
        problems.add(
            f"{table} whose {field.name!r} is not {field.meaning}",
            [f"{_label(table, rows[index], index)} has {_shown(rows[index], field.name)}" for index in wrong],
        )
        bad.update(wrong)
    return [row for index, row in enumerate(rows) if index not in bad] if bad else rows


def _label(table: str, row: Row, index: int) -> str:
    return f"id {row['id']}" if is_whole(row.get("id")) else f"entry {index + 1} of {table}"


def _shown(row: Row, name: str) -> str:
    text = repr(row[name]) if name in row else "none"
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "..."
