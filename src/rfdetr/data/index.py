"""What was read of large splits, kept on disk: the next start maps it into memory instead of reading it again."""

import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from rfdetr.data.raw import SplitFiles
from rfdetr.data.split_data import SplitData, from_arrays, to_arrays
from rfdetr.files import cache_folder
from rfdetr.version import __version__

# Reading less than this takes less than a second.
_FEWEST_IMAGES, _FEWEST_OBJECTS = 2_000, 20_000
_KEPT_DAYS = 60
_FACTS = "facts.json"


def fingerprint(files: SplitFiles) -> str:
    """Changes when a file or folder from which the split is read does: by names, sizes and times of modification."""
    digest = blake2b(digest_size=16)
    for path in files.watched:
        for line in sorted(_states(path)):
            digest.update(line)
    return digest.hexdigest()


def _states(path: Path) -> Iterator[bytes]:
    if not path.is_dir():
        yield _state(str(path), path.stat()) if path.exists() else os.fsencode(path)
        return
    folders = [str(path)]
    while folders:
        folder = folders.pop()
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    yield from _states_of_entry(entry, folders)
        except OSError:  # what it means is for the reader of the format to say
            yield os.fsencode(folder)


def _states_of_entry(entry: "os.DirEntry[str]", folders: list[str]) -> Iterator[bytes]:
    try:
        if entry.is_dir():
            # A link to a folder may lead back up.
            folders += [] if entry.is_symlink() else [entry.path]
        elif entry.is_file():
            yield _state(entry.path, entry.stat())
    except OSError:  # a link that leads to itself
        yield os.fsencode(entry.path)


def _state(path: str, stat: os.stat_result) -> bytes:
    return os.fsencode(f"{path}\0{stat.st_size}\0{stat.st_mtime_ns}\n")


def load(files: SplitFiles, masks: bool) -> SplitData | None:
    """What is kept of a split, if it is still as it was; nothing is of one that does not lie in files."""
    if not files.watched:
        return None
    folder = _folder(files, masks)
    try:
        facts = json.loads((folder / _FACTS).read_text(encoding="utf-8"))
        if facts["fingerprint"] != fingerprint(files):
            return None
        arrays = {name: _mapped(folder / f"{name}.npy") for name in facts["arrays"]}
        data = from_arrays(arrays, facts)
        os.utime(folder)
    except (OSError, LookupError, TypeError, ValueError):  # none, or damaged
        return None
    return data


def _mapped(path: Path) -> np.ndarray:
    array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    return array.view(np.ndarray)


def save(files: SplitFiles, masks: bool, data: SplitData, state: str) -> None:
    """Keep what was read while the split was in a state; where it cannot be kept, it is read anew next time."""
    is_small = len(data.names) < _FEWEST_IMAGES and len(data.labels) < _FEWEST_OBJECTS
    if is_small or not files.watched:
        return
    folder = _folder(files, masks)
    arrays, facts = to_arrays(data)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _remove_old(folder.parent)
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".part-"))
        try:
            for name, array in arrays.items():
                np.save(temporary / f"{name}.npy", array)
            kept: dict[str, Any] = {**facts, "arrays": list(arrays), "fingerprint": state}
            (temporary / _FACTS).write_text(json.dumps(kept), encoding="utf-8")
            shutil.rmtree(folder, ignore_errors=True)
            temporary.rename(folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError:
        return


def _folder(files: SplitFiles, masks: bool) -> Path:
    parts = (__version__, files.format, files.split, files.root.absolute(), files.file.absolute(), masks, files.parts)
    return cache_folder() / "index" / blake2b(repr(parts).encode(errors="replace"), digest_size=16).hexdigest()


def _remove_old(parent: Path) -> None:
    for folder in parent.iterdir():
        if time.time() - folder.stat().st_mtime > _KEPT_DAYS * 86400:
            shutil.rmtree(folder, ignore_errors=True)
