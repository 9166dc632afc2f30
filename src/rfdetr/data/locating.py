"""Which files the names of a split's images stand for."""

import os
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath, PureWindowsPath

from rfdetr.data.problems import Problems
from rfdetr.data.raw import SplitFiles

IMAGE_SUFFIXES = frozenset((".jpg", ".jpeg", ".jpe", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".jp2", ".npy"))


@dataclass(frozen=True)
class Located:
    names: list[str]
    """Of each image, relative to the root; empty where there is no such file."""
    unlisted: list[str]
    """Pictures in the same folders that no name stands for."""


def locate(names: list[str], files: SplitFiles, problems: Problems, present: Iterable[str] | None = None) -> Located:
    """Find the file of each name among those that are `present`; None: among the files of the split's folder.

    Folders are listed once: asking for each file is slow on network drives.
    """
    folders = _Folders(files.root, present)
    located, used = [], set()
    for name in names:
        found = _find(name, files, folders, problems)
        if found and found in used:
            problems.warning(files.file, "files listed as more than one image (the first counts)", name)
            found = ""
        used.add(found)
        located.append(found)
    return Located(located, sorted(folders.pictures() - used))


def _find(name: str, files: SplitFiles, folders: "_Folders", problems: Problems) -> str:
    plain = _plain(name, files)
    if plain is None:
        problems.warning(files.file, "images outside of the dataset's folder (left out)", name)
        return ""
    if plain in folders:
        return plain
    for candidate in (plain.strip(), PurePosixPath(plain).name):
        if candidate in folders:
            return candidate
    near = folders.near(plain)
    if near is None:
        problems.warning(files.file, f"images without a file in {files.root} (left out)", name)
        return ""
    if unicodedata.normalize("NFC", near) != unicodedata.normalize("NFC", plain):
        problems.warning(files.file, "images whose file is spelled otherwise (used)", f"{name} is {near}")
    return near


def _plain(name: str, files: SplitFiles) -> str | None:
    """The name relative to the root with `/`; None if that is outside of the dataset."""
    if "\\" in name:
        name = PureWindowsPath(name).as_posix()
    if not name.startswith("/") and ".." not in name:
        return name.removeprefix("./")
    path = Path(os.path.normpath(files.root / name))
    if path.is_relative_to(files.root):
        return path.relative_to(files.root).as_posix()
    if path.is_relative_to(files.dataset_dir):
        return os.path.relpath(path, files.root).replace(os.sep, "/")
    return None


class _Folders:
    """The files in the folders that have been asked about, by their names relative to a root."""

    def __init__(self, root: Path, present: Iterable[str] | None) -> None:
        self.root = root
        self._files: dict[str, frozenset[str]] = {}
        self._is_complete = present is not None
        files: defaultdict[str, list[str]] = defaultdict(list)
        for name in present or ():
            folder, _, own = name.rpartition("/")
            files[folder].append(own)
        self._files.update((folder, frozenset(names)) for folder, names in files.items())

    def __contains__(self, name: str) -> bool:
        folder, _, own = name.rpartition("/")
        return own in self._listing(folder)

    def _listing(self, folder: str) -> frozenset[str]:
        if folder not in self._files and self._is_complete:
            return frozenset()
        if folder not in self._files:
            try:
                with os.scandir(self.root / folder) as entries:
                    self._files[folder] = frozenset(entry.name for entry in entries if entry.is_file())
            except OSError:
                self._files[folder] = frozenset()
        return self._files[folder]

    def near(self, name: str) -> str | None:
        """A name that differs in nothing but case, blanks at its ends, or how letters with accents are written."""
        own = {_folded(name), _folded(PurePosixPath(name).name)}
        self._listing("")
        return next((known for folded in own if (known := self._by_folded.get(folded))), None)

    @cached_property
    def _by_folded(self) -> dict[str, str]:
        return {_folded(name): name for name in self._names()}

    def _names(self) -> Iterator[str]:
        for folder, names in self._files.items():
            yield from (f"{folder}/{name}" if folder else name for name in names)

    def pictures(self) -> set[str]:
        """Without hidden files: archives made on a Mac hold `._cat.jpg`, which is no picture."""
        files = (name for name in self._names() if name.rpartition("/")[2][0] != ".")
        return {name for name in files if os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES}  # noqa: PTH122


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold().strip()
