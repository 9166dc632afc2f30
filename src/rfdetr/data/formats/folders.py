"""Files of a dataset's folder: which are images, which lie inside, what text they hold."""

import os
import unicodedata
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from rfdetr.config.runs import Split
from rfdetr.data.locating import IMAGE_SUFFIXES, is_file

VALIDATION_NAMES = ("valid", "val", "validation")
"""What people call the split `valid`."""
SPLIT_NAMES: dict[Split, tuple[str, ...]] = {"train": ("train",), "valid": VALIDATION_NAMES, "test": ("test",)}


def suffix_of(name: str) -> str:
    """Of a file name, with its dot, in small letters; empty where it has none."""
    stem, dot, suffix = name.rpartition(".")
    return (dot + suffix).lower() if stem else ""


def stem_of(name: str) -> str:
    return name.rpartition(".")[0] or name


def same_text(name: str) -> str:
    """The name in one of the forms that look alike: archives made on a Mac hold accents as marks of their own."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def list_files(folder: Path | str) -> list[str]:
    """Names of the files in a folder, sorted, without hidden ones (`._cat.jpg` of archives made on a Mac).

    Raises:
        OSError: the folder cannot be read.
    """
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if not entry.name.startswith(".") and is_file(entry))


def walk(folder: Path | str) -> Iterator[tuple[str, list[str]]]:
    """The folder and those in it, without hidden ones: (path, names of its files), each folder once."""
    seen = set()
    waiting = [str(folder)]
    while waiting:
        place = waiting.pop()
        real = os.path.realpath(place)
        if real in seen:  # symbolic links may lead in circles
            continue
        seen.add(real)
        yield place, list_files(place)
        waiting += reversed(list_folders(place))


def list_folders(folder: Path | str) -> list[str]:
    """Paths of the folders in a folder, sorted, without hidden ones.

    Raises:
        OSError: the folder cannot be read.
    """
    with os.scandir(folder) as entries:
        return sorted(entry.path for entry in entries if not entry.name.startswith(".") and _is_folder(entry))


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def child(folder: Path, name: str) -> Path:
    """A file or folder in a folder, whichever way its letters are written: other systems do not tell the difference."""
    exact = folder / name
    if os.path.lexists(exact):  # which does not raise for folders that cannot be read
        return exact
    try:
        names = os.listdir(folder)  # noqa: PTH208 - as in Presence
    except OSError:
        return exact
    return next((folder / other for other in sorted(names) if other.casefold() == name.casefold()), exact)


def alike(folder: str, parts: Iterable[str]) -> str:
    """The path of what `child` finds step by step."""
    path = Path(folder)
    for part in parts:
        path = child(path, part)
    return str(path)


def images_among(names: list[str]) -> list[str]:
    """Files that are images by their suffix. `a.npy` beside `a.jpg` is another program's copy of it."""
    images = [name for name in names if suffix_of(name) in IMAGE_SUFFIXES]
    if not any(name.endswith(".npy") for name in images):
        return images
    pictures = {stem_of(name) for name in images if not name.endswith(".npy")}
    return [name for name in images if not name.endswith(".npy") or stem_of(name) not in pictures]


def is_inside(path: str, root: str) -> bool:
    """Whether an absolute path leads into a folder, both normalised; symbolic links are not followed."""
    return path == root or path.startswith(root.rstrip("/") + "/")


class Presence:
    """Whether files exist. Each folder is listed once: asking for each file is slow on network drives."""

    def __init__(self) -> None:
        self._names = cache(lambda folder: frozenset(_all_names(folder)))

    def __contains__(self, path: str) -> bool:
        folder, _, name = path.rpartition("/")
        return name in self._names(folder or "/")


def _all_names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)  # noqa: PTH208 - Path objects for 100,000 files take a second
    except (OSError, ValueError):  # none, or no name of a folder
        return []


def read_text(file: Path) -> str:
    """The text of a file in UTF-8 (a byte order mark is fine).

    Raises:
        ValueError: it cannot be read, or is in another encoding; the message says so without the name of the file.
    """
    try:
        return file.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError("not a text file in UTF-8 (save it with this encoding)") from None
