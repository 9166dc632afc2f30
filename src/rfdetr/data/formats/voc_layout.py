"""Where the splits of a Pascal VOC dataset lie."""

from dataclasses import dataclass
from pathlib import Path

from rfdetr.config.runs import Split
from rfdetr.data.formats.folders import SPLIT_NAMES, child, images_among, list_files, list_folders
from rfdetr.data.problems import Problems
from rfdetr.data.raw import SplitFiles

_SET_NAMES: dict[Split, tuple[str, ...]] = {
    "train": ("train", "trainval"),
    "valid": ("val", "valid"),
    "test": ("test",),
}
_IMAGE_FOLDERS = ("JPEGImages", "images")
_LOOKED_AT = 20  # XML files of other kinds may lie there too


@dataclass(frozen=True)
class VocParts:
    """What is read for a split."""

    annotations: Path
    image_set: Path | None = None
    """A text file with the stems of the split's XML files; without one it has all."""


def find(root: Path, _problems: Problems) -> dict[Split, SplitFiles]:
    """The splits of a dataset. Empty where there are no annotations of this format."""
    if not root.is_dir():
        return {}
    return _split_folders(root) or next(filter(None, map(_devkit, _devkit_folders(root))), {})


def _split_folders(root: Path) -> dict[Split, SplitFiles]:
    found: dict[Split, SplitFiles] = {}
    for split, names in SPLIT_NAMES.items():
        place = next(filter(None, (_place(child(root, name)) for name in names)), None)
        if place:
            found[split] = _split_files(root, split, *place)
    return found


def _devkit_folders(root: Path) -> list[Path]:
    """The root, or the only folder of a year in it, as archives of the challenge have it."""
    years = [Path(path) for top in (root, root / "VOCdevkit") if top.is_dir() for path in list_folders(top)]
    years = [path for path in years if path.name.startswith("VOC") and _place(path)]
    return [root, *(years if len(years) == 1 else [])]


def _devkit(folder: Path) -> dict[Split, SplitFiles]:
    """The splits of ImageSets/Main; without any, all is for training."""
    place = _place(folder)
    if place is None:
        return {}
    sets = folder / "ImageSets" / "Main"
    found: dict[Split, SplitFiles] = {}
    for split, names in _SET_NAMES.items():
        file = next((sets / f"{name}.txt" for name in names if (sets / f"{name}.txt").is_file()), None)
        if file:
            found[split] = _split_files(folder, split, *place, file)
    return found or {"train": _split_files(folder, "train", *place)}


def _place(folder: Path) -> tuple[Path, Path] | None:
    """Where annotations and images lie in a folder: in two folders of it, or both in the folder itself."""
    places = (child(folder, "Annotations"), folder)
    annotations = next((place for place in places if place.is_dir() and _has_annotations(place)), None)
    if annotations is None:
        return None
    images = (child(folder, name) for name in _IMAGE_FOLDERS)
    beside = folder if images_among(list_files(folder)) else annotations
    return annotations, next((place for place in images if place.is_dir()), beside)


def _has_annotations(folder: Path) -> bool:
    return any("<annotation" in _start(folder / name) for name in xml_files(folder)[:_LOOKED_AT])


def xml_files(folder: Path) -> list[str]:
    return [name for name in list_files(folder) if name.endswith((".xml", ".XML"))]


def _start(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            return stream.read(4096).replace(b"\0", b"").decode("utf-8", "ignore")  # UTF-16, too
    except OSError:
        return ""


def _split_files(
    root: Path, split: Split, annotations: Path, images: Path, image_set: Path | None = None
) -> SplitFiles:
    return SplitFiles(
        format="voc",
        split=split,
        dataset_dir=root,
        root=images,
        file=annotations,
        watched=tuple(path for path in dict.fromkeys((annotations, images, image_set)) if path),
        parts=VocParts(annotations, image_set),
    )
