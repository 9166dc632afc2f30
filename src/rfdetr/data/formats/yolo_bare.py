"""YOLO datasets without data.yaml, as LabelImg, CVAT, Label Studio and Darknet leave them.

The names of the classes are the lines of a text file; splits lie in the usual folders, or in text files with the paths
of images. Images without a split are for training.
"""

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from rfdetr.config.runs import Split
from rfdetr.data.formats.coco_layout import ALIASES
from rfdetr.data.formats.folders import (
    alike,
    child,
    images_among,
    list_files,
    list_folders,
    read_text,
    same_text,
    stem_of,
)
from rfdetr.data.formats.yolo import YoloParts, split_files
from rfdetr.data.formats.yolo_file import checked_names, find_data_file, read_data_file
from rfdetr.data.formats.yolo_images import list_images
from rfdetr.data.formats.yolo_labels import label_files, label_folder, read_label_file
from rfdetr.data.problems import Problems
from rfdetr.data.raw import SplitFiles

_FILES_OF_NAMES = ("classes.txt", "obj.names", "classes.names", "_darknet.labels", "predefined_classes.txt")
_LOOKED_AT = 20  # label files, to see whether they are of this format


def find(root: Path, problems: Problems) -> dict[Split, SplitFiles]:
    """The splits of a dataset; empty where there are no label files, or no names for them, which is noted."""
    sources = {split: source for split, names in ALIASES.items() if (source := _of_split(root, names))}
    if "train" not in sources and (whole := _without_split(root)):
        sources["train"] = whole
    labels = list(dict.fromkeys(folder for source in sources.values() for folder in _label_folders(root, source)))
    if not labels:
        return {}
    try:
        file, names = _of_folder_below(root) or _names(root, labels)
    except ValueError as error:
        problems.error(root, str(error))
        return {}
    return {split: split_files(split, root, YoloParts(file, names, (source,), 0)) for split, source in sources.items()}


def _of_split(root: Path, names: tuple[str, ...]) -> Path | None:
    """The folder of images of a split, or the text file that lists them."""
    ends = (end for name in names for end in ((name, "images"), ("images", name), (name,), (f"{name}.txt",)))
    return next((place for end in ends if _is_source(root, place := Path(alike(str(root), end)))), None)


def _without_split(root: Path) -> Path | None:
    return next((place for place in (child(root, "images"), root) if _is_source(root, place)), None)


def _is_source(root: Path, place: Path) -> bool:
    return any(True for _ in _label_folders(root, place))


def _label_folders(root: Path, source: Path) -> Iterator[str]:
    """Those for the images of a source in which there are label files."""
    if source.is_file():
        images = list_images((source,), root, Problems())
    else:
        images = {str(source): images_among(list_files(source))} if source.is_dir() else {}
    for folder, names in images.items():
        labels = label_folder(folder, str(root))
        known = label_files(labels)
        files = (known[stem] for name in names if (stem := same_text(stem_of(name))) in known)
        if any(map(_is_label_file, islice(files, _LOOKED_AT))):
            yield labels


def _is_label_file(file: str) -> bool:
    """Whether its first line is a class and the numbers of a box or an outline."""
    try:
        numbers = [float(word) for word in read_label_file(file).partition(b"\n")[0].split()]
    except (OSError, ValueError):
        return False
    return len(numbers) >= 5 and numbers[0].is_integer()


def _of_folder_below(root: Path) -> tuple[Path, tuple[str, ...]] | None:
    """A data.yaml that lies one folder too deep. What it says of splits does not hold for the root."""
    files = [file for folder in list_folders(root) if (file := find_data_file(Path(folder)))]
    data = read_data_file(files[0], Problems()) if len(files) == 1 else None
    return None if data is None else (data.file, data.names)


def _names(root: Path, labels: list[str]) -> tuple[Path, tuple[str, ...]]:
    """The file of the names, and these.

    Raises:
        ValueError: there is none, it cannot be used, or there are several that differ.
    """
    folders = [root, *(Path(folder) for label in labels for folder in (label, os.path.dirname(label)))]  # noqa: PTH120
    files = [file for folder in dict.fromkeys(folders) for name in _FILES_OF_NAMES if (file := folder / name).is_file()]
    if not files:
        raise ValueError(
            f"label files of YOLO in {os.path.relpath(labels[0], root)}, but nothing that names their classes. Write "
            "data.yaml with a line `names: [cat, dog]`, or classes.txt with a name in each line, into this folder"
        )
    found: dict[tuple[str, ...], Path] = {}
    for file in files:
        try:
            found.setdefault(checked_names(read_text(file).strip().splitlines()), file)
        except ValueError as error:
            raise ValueError(f"{os.path.relpath(file, root)}: {error}") from None
    if len(found) > 1:
        places = " and ".join(os.path.relpath(file, root) for file in found.values())
        raise ValueError(f"{places} name different classes. Leave one of them")
    ((names, file),) = found.items()
    return file, names
