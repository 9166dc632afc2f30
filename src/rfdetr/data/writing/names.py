"""Names for the pictures of a dataset that is written: their own, as far as the format can hold them."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from rfdetr.data.formats.folders import same_text, suffix_of
from rfdetr.data.locating import IMAGE_SUFFIXES

# YOLO finds the labels of a picture by these folders.
_YOLO_FOLDERS = ("images", "labels")


@dataclass
class Names:
    """Gives each picture of a split a name of its own, relative to the split's folder."""

    is_yolo: bool = False
    """Labels are found by the name without suffix, and pictures by their suffix."""
    renamed: int = 0
    _taken: set[str] = field(default_factory=set)

    def add(self, name: str, suffix: str = "") -> str:
        """The new name of a picture. `suffix` is what its kind is called, in case that the name does not say."""
        parts = _inside(name)
        if self.is_yolo:
            parts = _findable(parts, suffix)
        found = "/".join(parts)
        stem, number = found[: len(found) - len(suffix_of(parts[-1]))], 2
        while self._key(found) in self._taken:
            found, number = f"{stem}_{number}{suffix_of(parts[-1])}", number + 1
        self._taken.add(self._key(found))
        self.renamed += found != name
        return found

    def _key(self, name: str) -> str:
        return same_text(label_name(name) if self.is_yolo else name)


def label_name(name: str) -> str:
    """Of the label file of a picture: `a/b.jpg` -> `a/b.txt`."""
    return f"{name[: len(name) - len(suffix_of(PurePosixPath(name).name))]}.txt"


def _inside(name: str) -> list[str]:
    """The parts of a path, those that lead out of a folder aside. Backslashes would be read as slashes."""
    parts = PurePosixPath(name.replace("\\", "_")).parts
    return [part for part in parts if part not in ("..", "/")]


def _findable(parts: Iterable[str], suffix: str) -> list[str]:
    """As a reader of YOLO finds them: not hidden, and with a suffix that pictures have."""
    *folders, own = [f"_{part}" if part.startswith(".") else part for part in parts]
    if suffix_of(own) not in IMAGE_SUFFIXES:
        own += suffix
    return [*(folder for folder in folders if folder not in _YOLO_FOLDERS), own]
