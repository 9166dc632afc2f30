"""The images of a split: those of folders, and those that text files list."""

import os
from collections.abc import Iterable
from pathlib import Path

from rfdetr.data.formats.folders import Presence, images_among, is_inside, read_text, walk
from rfdetr.data.problems import Problems, brief

Images = dict[str, list[str]]
"""Absolute path of a folder -> names of images in it."""


def list_images(sources: Iterable[Path], root: Path, problems: Problems) -> Images:
    """The images of all sources. What text files list need not exist, but lies below the root."""
    images: Images = {}
    for source in sources:
        found = _of_list(source, root, problems) if source.is_file() else _of_folder(source)
        if not found:
            problems.warning(source, "no images in it")
        for folder, names in found.items():
            images.setdefault(folder, []).extend(names)
    return images


def _of_folder(folder: Path) -> Images:
    return {place: images for place, names in walk(folder) if (images := images_among(names))}


def _of_list(file: Path, root: Path, problems: Problems) -> Images:
    try:
        lines = read_text(file).splitlines()
    except ValueError as error:
        problems.error(file, str(error))
        return {}
    top = os.path.abspath(root)  # noqa: PTH100 - without ".."
    beside = os.path.dirname(os.path.abspath(file))  # noqa: PTH100, PTH120
    present = Presence()
    images: Images = {}
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        path = _meant(text, beside, top, present)
        if (path is None or path not in present) and (other := _by_its_end(text, top, present)):
            path = other
            if text.startswith("/") or "\\" in text:
                kind = "images that are somewhere else (used)"
                problems.warning(file, kind, f"line {number} {brief(text)} is {os.path.relpath(path, top)}")
        if path is None or "\0" in path:
            kind = f"paths that lead out of the dataset {top}" if path is None else "lines that are no paths"
            problems.warning(file, f"{kind} (left out)", f"line {number} {brief(text)}")
            continue
        folder, _, name = path.rpartition("/")
        images.setdefault(folder, []).append(name)
    return images


def _meant(text: str, beside: str, top: str, present: Presence) -> str | None:
    """The absolute path of a line: the first reading that exists, else the first inside; None where all lead out."""
    starts = (beside, top) if text.startswith("./") else (top, beside)
    inside = None
    for spelling in (text, text.replace("\\", "/")) if "\\" in text else (text,):
        for start in starts:
            path = os.path.normpath(spelling if spelling[0] == "/" else f"{start}/{spelling}")
            if is_inside(path, top) and path != top:
                if path in present:
                    return path
                inside = inside or path
    return inside


def _by_its_end(text: str, top: str, present: Presence) -> str | None:
    """The file that a path of another machine means: the one with the most of its folders."""
    parts = os.path.normpath(text.replace("\\", "/")).strip("/").split("/")
    if parts[0] == "..":
        return None
    ends = (f"{top}/{'/'.join(parts[start:])}" for start in range(1, len(parts)))
    return next((end for end in ends if end in present), None)
