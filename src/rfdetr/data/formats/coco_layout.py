"""Where the splits of a dataset in COCO's format lie."""

import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from rfdetr.config.runs import Split
from rfdetr.data.formats.folders import Presence, child, list_files, suffix_of
from rfdetr.data.json_stream import read_lists
from rfdetr.data.problems import Problems
from rfdetr.data.raw import SplitFiles
from rfdetr.errors import DatasetError

ROBOFLOW = "_annotations.coco.json"
ALIASES: dict[Split, tuple[str, ...]] = {
    "train": ("train", "training"),
    "valid": ("valid", "val", "validation"),
    "test": ("test", "testing"),
}
# COCO 2017 keeps the boxes of its test split to itself; its validation split stands in.
_COCO_2017: dict[Split, tuple[str, ...]] = {
    "train": ("train2017",),
    "valid": ("val2017",),
    "test": ("test2017", "val2017"),
}
# Of the same images, for other tasks.
_OTHER_TASKS = re.compile(r"captions|keypoints|stuff|panoptic|image_info", re.IGNORECASE)
_LOOKED_AT = 20  # images of a file, to see in which folder they are
_ENTRIES_TO_LOOK_AT = 100_000


def find_roboflow(root: Path, problems: Problems) -> dict[Split, SplitFiles]:
    """`train/`, `valid/` or `val/`, `test/`, each with its annotation file beside the images."""
    found: dict[Split, SplitFiles] = {}
    for split, names in ALIASES.items():
        files = [file for name in names if (file := child(child(root, name), ROBOFLOW)).is_file()]
        if files:
            found[split] = _files(root, split, _beside_or_below(root, split, files[0]), files[0])
            for other in files[1:]:
                problems.warning(root, f"two folders for the {split} split ({files[0].parent.name} counts)", str(other))
    for split, names in ALIASES.items():
        folder = next((folder for name in names if (folder := child(root, name)).is_dir()), None)
        if found and split not in found and folder is not None and not _json_files(folder):
            add = problems.warning if split == "test" else problems.error
            add(root, f"split {split!r} is incomplete: no {folder / ROBOFLOW}")
    return found


def _beside_or_below(root: Path, split: Split, file: Path) -> Path:
    """The folder of a split's images: that of its file, or one for images in it."""
    has_more = any(child(file.parent, name).is_dir() for name in ("images", "data"))
    return _image_dir(root, split, file) if has_more else file.parent


def find_coco_2017(root: Path, problems: Problems) -> dict[Split, SplitFiles]:
    """`train2017/`, `val2017/` and `annotations/instances_{train,val}2017.json`."""
    found: dict[Split, SplitFiles] = {}
    for split, names in _COCO_2017.items():
        for name in names:
            folder, file = child(root, name), child(child(root, "annotations"), f"instances_{name}.json")
            if folder.is_dir() and file.is_file():
                found.setdefault(split, _files(root, split, folder, file))
            elif split != "test" and folder.is_dir() != file.is_file():
                lacking = file if folder.is_dir() else folder
                if folder.is_dir() or not _named(root, split):
                    problems.error(root, f"split {split!r} is incomplete: no {lacking}")
    return found if "train" in found or "valid" in found else {}


def find_named(root: Path, problems: Problems) -> dict[Split, SplitFiles]:
    """Any JSON file that is named after a split, or lies in a folder that is; its images where its names say.

    A single file without such a name is the training split.
    """
    found: dict[Split, SplitFiles] = {}
    for split in ALIASES:
        candidates = _named(root, split)
        if len(candidates) > 1:
            names = ", ".join(str(file.relative_to(root)) for file in candidates)
            problems.error(root, f"several annotation files for the {split} split: {names}. Leave one of them")
        if candidates:
            found[split] = _files(root, split, _image_dir(root, split, candidates[0]), candidates[0])
    if not found:
        single = [
            file for folder in (root, child(root, "annotations")) for file in _json_files(folder) if _is_coco(file)
        ]
        single = [file for file in single if file.name != ROBOFLOW]  # this is a folder of a split
        if len(single) == 1:
            found["train"] = _files(root, "train", _image_dir(root, "train", single[0]), single[0])
    return found


def _files(root: Path, split: Split, image_dir: Path, file: Path) -> SplitFiles:
    watched = (file, image_dir) if not file.is_relative_to(image_dir) else (image_dir,)
    return SplitFiles("coco", split, root, image_dir, file, watched)


def _json_files(folder: Path) -> list[Path]:
    """Without hidden ones: archives made on a Mac hold `._train.json`."""
    return [folder / name for name in list_files(folder) if suffix_of(name) == ".json"] if folder.is_dir() else []


def _named(root: Path, split: Split) -> list[Path]:
    """The files that may be a split's, from the surest kind of place."""
    by_name = [
        file
        for folder in (root, child(root, "annotations"), child(root, "labels"))
        for file in _json_files(folder)
        if _names_split(file.stem, split)
    ]
    in_folders = [
        file
        for name in ALIASES[split]
        for own in (child(root, name),)
        for folder in (own, child(own, "annotations"), child(child(root, "annotations"), name))
        for file in _json_files(folder)
    ]
    for files in (by_name, in_folders):
        coco = [file for file in files if not _OTHER_TASKS.search(file.stem) and _is_coco(file)]
        instances = [file for file in coco if "instances" in file.stem.lower()]
        if coco:
            return instances if len(instances) == 1 else coco
    return []


def _names_split(stem: str, split: Split) -> bool:
    words = re.findall(r"[a-z]+", stem.lower())
    return any(alias in words for alias in ALIASES[split])


def _is_coco(file: Path) -> bool:
    """Whether it begins like an annotation file, or is too broken to say."""
    try:
        return next(read_lists(file, ("images", "annotations")), None) is not None
    except DatasetError:
        return True


def _first_names(file: Path) -> Iterator[str]:
    try:
        for table, entry in islice(read_lists(file, ("images",)), _ENTRIES_TO_LOOK_AT):
            if table == "images" and isinstance(entry, dict) and isinstance(entry.get("file_name"), str):
                yield entry["file_name"]
    except DatasetError:
        return


def _image_dir(root: Path, split: Split, file: Path) -> Path:
    """The folder in which most of the first images are."""
    names, own = [name.replace("\\", "/") for name in islice(_first_names(file), _LOOKED_AT)], file.parent
    aliases = [*ALIASES[split], *(f"{alias}2017" for alias in ALIASES[split]), "default"]
    images, aliased = child(root, "images"), [child(root, alias) for alias in aliases]
    folders = [
        own,
        *aliased,
        *(child(images, alias) for alias in aliases),
        *(child(folder, part) for folder in aliased for part in ("images", "data")),
        child(own, "images"),
        child(own, "data"),
        images,
        child(root, "data"),
        root,
    ]
    existing = [folder for folder in dict.fromkeys(folders) if folder.is_dir()]
    present = Presence()

    def number_of_images(folder: Path) -> tuple[int, int]:
        """Of those listed by their path, and of those listed by name alone."""
        ends = (name.rpartition("/")[2] for name in names)
        return sum(f"{folder}/{name}" in present for name in names), sum(f"{folder}/{end}" in present for end in ends)

    return max(existing, key=number_of_images)
