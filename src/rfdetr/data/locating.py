"""Which files the names of a split's images stand for."""

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from urllib.parse import unquote

from rfdetr.data.problems import Problems
from rfdetr.data.raw import SplitFiles

IMAGE_SUFFIXES = frozenset(
    (
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".dib", ".tif", ".tiff", ".webp", ".gif", ".jp2", ".npy"),
        *(".avif", ".heic", ".heif", ".ppm", ".pgm", ".pnm", ".tga", ".mpo"),
    )
)
_DRIVE = re.compile("[A-Za-z]:/")
_LONGEST = 200  # characters of a name in a message


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
    given = PureWindowsPath(name).as_posix() if "\\" in name else name
    is_absolute = given.startswith("/") or _DRIVE.match(given) is not None
    plain = _plain(given, files)
    if plain is not None and plain in folders:
        return plain
    if plain is None and not is_absolute:
        problems.warning(files.file, "images outside of the dataset's folder (left out)", name)
        return ""
    own = os.path.normpath(given) if plain is None else plain.strip()
    for spelling in _spellings(own):
        found = next((end for end in _ends(spelling) if end in folders), None) or folders.near(spelling)
        if found is not None:
            is_same = _composed(own).endswith(_composed(found))
            if is_absolute or not is_same:
                kind = "spelled otherwise" if not is_same else "somewhere else"
                problems.warning(files.file, f"images whose file is {kind} (used)", f"{_brief(name)} is {found}")
            return found
    kind = "outside of the dataset's folder" if plain is None else f"without a file in {files.root}"
    problems.warning(files.file, f"images {kind} (left out)", _brief(name))
    return ""


def _plain(name: str, files: SplitFiles) -> str | None:
    """The name relative to the root; None if that is outside of the dataset."""
    if not name.startswith("/") and ".." not in name and not _DRIVE.match(name):
        return name.removeprefix("./")
    path = Path(os.path.normpath(files.root / name))
    if path.is_relative_to(files.root):
        return path.relative_to(files.root).as_posix()
    if path.is_relative_to(files.dataset_dir):
        return os.path.relpath(path, files.root).replace(os.sep, "/")
    return None


def _spellings(name: str) -> Iterator[str]:
    """As it is, and as programs that keep pictures on a server write it: `a%20b.jpg?expires=1`."""
    yield name
    if "?" in name:
        yield name.partition("?")[0]
    if "%" in name:
        yield unquote(name.partition("?")[0], errors="surrogateescape")


def _ends(name: str) -> Iterator[str]:
    """The name without more and more of its folders: that of another machine, or of the address of a server."""
    parts = PurePosixPath(name).parts
    if not name.startswith("/"):
        yield name
    for start in range(1, len(parts)):
        if ".." not in parts[start:]:
            yield "/".join(parts[start:])


def _brief(name: str) -> str:
    return name if len(name) <= _LONGEST else f"{name[:_LONGEST]}..."


class _Folders:
    """The files in the folders that have been asked about, by their names relative to a root."""

    def __init__(self, root: Path, present: Iterable[str] | None) -> None:
        self.root = root
        self._files: dict[str, frozenset[str]] = {}
        self._is_complete = present is not None
        self._by_folded: dict[str, str] = {}
        self._num_folded = 0  # folders that are in it
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
                    self._files[folder] = frozenset(entry.name for entry in entries if is_file(entry))
            except OSError:
                self._files[folder] = frozenset()
        return self._files[folder]

    def near(self, name: str) -> str | None:
        """A name that differs in nothing but case, blanks at its ends, or how letters with accents are written."""
        self._listing("")
        if self._num_folded < len(self._files):
            self._num_folded = len(self._files)
            self._by_folded = {_folded(name): name for name in self._names()}
        own = (_folded(name), _folded(PurePosixPath(name).name))
        return next((known for folded in own if (known := self._by_folded.get(folded))), None)

    def _names(self) -> Iterator[str]:
        for folder, names in self._files.items():
            yield from (f"{folder}/{name}" if folder else name for name in names)

    def pictures(self) -> set[str]:
        """Without hidden files: archives made on a Mac hold `._cat.jpg`, which is no picture."""
        files = (name for name in self._names() if name.rpartition("/")[2][0] != ".")
        return {name for name in files if os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES}  # noqa: PTH122


def is_file(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_file()
    except OSError:  # a link that leads to itself
        return False


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _folded(name: str) -> str:
    return _composed(name).casefold().strip()
