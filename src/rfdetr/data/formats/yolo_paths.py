"""Which folders and text files the paths of data.yaml mean. Those of other machines are looked for in the dataset."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from rfdetr.config.runs import Split
from rfdetr.data.formats.folders import SPLIT_NAMES, alike, is_inside, suffix_of
from rfdetr.data.formats.yolo_file import DataFile
from rfdetr.data.problems import Problems

Sources = tuple[Path, ...]
"""Folders of images, or text files with their paths."""


_DRIVE = re.compile("^[A-Za-z]:/")


@dataclass(frozen=True)
class _Place:
    """Where the paths of data.yaml may start."""

    root: str
    """Nothing outside of it is read."""
    base: str


class _NotFoundError(Exception):
    """A path leads to nothing, or out of the dataset."""


def locate(data: DataFile, problems: Problems) -> tuple[Path, dict[Split, Sources]]:
    """The root of the dataset and its splits. What is named and cannot be found is noted."""
    places = _places(data)
    place = next((place for place in places if _has_any(data, place)), places[0])
    found: dict[Split, Sources] = {}
    for split in SPLIT_NAMES:
        if split in data.splits:
            found[split] = _named(data, split, place, problems)
        elif usual := _usual(split, place):
            found[split] = (usual,)
    found = {split: sources for split, sources in found.items() if sources}
    if not found:
        _explain(data, place, problems)
    return Path(place.root), found


def _places(data: DataFile) -> list[_Place]:
    """By `path`, then the folder of data.yaml: datasets are moved, and Ultralytics writes paths from its own folder."""
    folder = os.path.abspath(data.file.parent)  # noqa: PTH100 - as Path.absolute(), without "..""
    here = _Place(folder, folder)
    if data.path is None:
        return [here]
    path = os.path.expanduser(data.path.replace("\\", "/"))  # noqa: PTH111 - keeps unknown users as they are
    if os.path.isabs(path):  # noqa: PTH117
        path = os.path.normpath(path)
        return [_Place(path, path), here] if os.path.isdir(path) else [here]  # noqa: PTH112 - as _exists()
    places = []
    for start in (folder, os.getcwd()):  # noqa: PTH109
        base = _seen_from(folder, os.path.normpath(f"{start}/{path}"))
        if base and os.path.isdir(base):  # noqa: PTH112
            places.append(_Place(folder, base))
    return [*places, here]


def _seen_from(folder: str, path: str) -> str | None:
    """The path as one below the folder, symbolic links on the way to both aside; None where it is none."""
    if is_inside(path, folder):
        return path
    real, real_folder = os.path.realpath(path), os.path.realpath(folder)
    return os.path.normpath(f"{folder}/{os.path.relpath(real, real_folder)}") if is_inside(real, real_folder) else None


def _has_any(data: DataFile, place: _Place) -> bool:
    for split in SPLIT_NAMES:
        if _usual(split, place):
            return True
        for entry in data.splits.get(split, ("", ()))[1]:
            try:
                _find(entry, place)
            except _NotFoundError:
                continue
            return True
    return False


def _usual(split: Split, place: _Place) -> Path | None:
    """Where a split lies that has no key."""
    ends = (parts for name in SPLIT_NAMES[split] for parts in ((name, "images"), ("images", name)))
    folders = (alike(place.base, parts) for parts in ends)
    return next((Path(folder) for folder in folders if os.path.isdir(folder)), None)  # noqa: PTH112 - as _exists()


def _named(data: DataFile, split: Split, place: _Place, problems: Problems) -> Sources:
    key, entries = data.splits[split]
    found, missing = [], []
    for entry in entries:
        try:
            path, remark = _find(entry, place)
            found.append(path)
            if remark:
                problems.warning(data.file, f"{key}: {entry}: {remark}")
        except _NotFoundError as error:
            missing.append(f"{key}: {entry}: {error}")
    usual = None if found else _usual(split, place)
    if missing and usual:
        problems.warning(data.file, f"{missing[0]}. {_shown(usual, place)} is read instead")
        return (usual,)
    for text in missing:
        # Roboflow names a test split whether there is one or not.
        (problems.warning if split == "test" else problems.error)(data.file, text)
    return tuple(found)


def _find(entry: str, place: _Place) -> tuple[Path, str | None]:
    """The folder or text file that a path means, and what there is to say about the choice.

    Raises:
        _NotFoundError: says why there is none.
    """
    path = entry if _exists(f"{place.base}/{entry}") else _DRIVE.sub("/", entry.replace("\\", "/"))
    plain = os.path.normpath(os.path.join(place.base, os.path.expanduser(path)))  # noqa: PTH111, PTH118
    inside = _seen_from(place.root, plain)
    if inside and _exists(inside):
        return _checked(Path(inside)), None
    if os.path.isabs(path):  # noqa: PTH117
        if not _exists(plain):
            parts = plain.strip("/").split("/")
            ends = (Path(place.base, *parts[start:]) for start in range(1, len(parts)))
            if end := next((end for end in ends if _exists(str(end))), None):
                return _checked(end), f"no such folder; {_shown(end, place)} is read instead"
    elif stripped := _without_climbs(path):
        # Roboflow writes `../train/images` and means `train/images`.
        plain_inside = os.path.normpath(f"{place.base}/{stripped}")
        if is_inside(plain_inside, place.root) and _exists(plain_inside):
            return _checked(Path(plain_inside)), None
        other = alike(place.base, os.path.normpath(stripped).split("/"))
        if is_inside(os.path.normpath(other), place.root) and _exists(other):
            return _checked(Path(other)), f"no such folder; {_shown(Path(other), place)} is read instead"
    if not inside and _exists(plain):
        raise _NotFoundError(
            f"leads to {plain}, out of the dataset {place.root}. Move it inside, or set `path` to the absolute path "
            "of a folder that holds all splits"
        )
    raise _NotFoundError(f"no such folder or text file in {place.base}")


def _exists(path: str) -> bool:
    return os.path.exists(path)  # noqa: PTH110 - Path.exists() raises for names that are too long


def _without_climbs(path: str) -> str:
    parts = path.split("/")
    while parts and parts[0] in ("..", ".", ""):
        parts.pop(0)
    return "/".join(parts)


def _checked(path: Path) -> Path:
    if path.is_dir() or suffix_of(path.name) == ".txt":
        return path
    raise _NotFoundError("is neither a folder of images nor a text file (.txt) of their paths")


def _shown(path: Path, place: _Place) -> str:
    return os.path.relpath(path, place.root)


def _explain(data: DataFile, place: _Place, problems: Problems) -> None:
    """Say why nothing was found, unless that has been said of each key."""
    if data.path is not None and place.base == os.path.abspath(data.file.parent):  # noqa: PTH100
        text = (
            f"path: {data.path}: no such folder inside {place.root}. Remove the line, or give the absolute path of the "
            "dataset's folder"
        )
        problems.warning(data.file, text)
    if not data.splits:
        text = (
            "no `train` or `val`, and neither train/images nor images/train beside it. Name the folders of images: "
            "`train: train/images`, `val: valid/images`"
        )
        problems.error(data.file, text)
