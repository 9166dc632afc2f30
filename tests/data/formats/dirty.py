"""Writes datasets with defects, as few files as show them. Pictures are empty files: readers look at names alone."""

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import numpy as np

from rfdetr.config.runs import Split
from rfdetr.data.problems import Problems
from rfdetr.data.raw import RawSplit

Files = Mapping[str, str | bytes]


def write(root: Path, files: Files) -> Path:
    """Files by their paths; text is written as UTF-8 with the line ends that it has."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return root


def read_split(
    reader: ModuleType, root: Path, split: Split = "train", masks: bool = False
) -> tuple[RawSplit, list[str]]:
    """What a reader makes of a split, and the problems of finding and reading it, below the root and with severity."""
    problems = Problems()
    raw = reader.read(reader.find(root, problems)[split], masks, problems)
    return raw, texts(problems, root)


def texts(problems: Problems, root: Path) -> list[str]:
    return [
        f"{problem.severity} {problem}".replace(f"{root}/", "").replace(str(root), "ROOT") for problem in problems.found
    ]


def objects(raw: RawSplit) -> list[tuple[str, str, list[float]]]:
    """Image, class and box of each object, in the order of the split."""
    boxes = np.round(np.array(raw.boxes).reshape(-1, 4), 6).tolist()
    return [
        (raw.names[image], raw.categories[label].name, box)
        for image, label, box in zip(raw.images, raw.labels, boxes, strict=True)
    ]
