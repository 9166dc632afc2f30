"""Which files of a folder make up a split, in any of the formats that are read."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NoReturn

from rfdetr.config.runs import Split
from rfdetr.config.values import Samples
from rfdetr.data import samples
from rfdetr.data.fetching import is_address, local_path
from rfdetr.data.formats import coco_layout, csv_tables, voc, webdataset, yolo, yolo_bare
from rfdetr.data.formats.folders import list_folders
from rfdetr.data.problems import Problems, raise_errors
from rfdetr.data.raw import SplitFiles
from rfdetr.errors import DatasetError

SPLITS: tuple[Split, ...] = ("train", "valid", "test")
Found = Mapping[Split, SplitFiles]
# The first that finds a training split wins, else the first that finds any.
_FINDERS: tuple[Callable[[Path, Problems], Found], ...] = (
    webdataset.find,
    coco_layout.find_roboflow,
    yolo.find,
    coco_layout.find_coco_2017,
    coco_layout.find_named,
    voc.find,
    csv_tables.find,
    yolo_bare.find,
)
_EXPECTED = (
    f"Expected one of: train/, valid/ (or val/) and test/, each with {coco_layout.ROBOFLOW} beside its images; "
    "COCO 2017's train2017/, val2017/ and annotations/instances_{train,val}2017.json; a folder of images with a COCO "
    "file per split (train.json, valid.json); YOLO's data.yaml with images/ and labels/; Pascal VOC's XML files; "
    "CSV files with filename, class, xmin, ymin, xmax, ymax; tar shards as `rfdetr convert --shards` writes them."
)
_SPLIT_FOLDERS = frozenset(name for names in coco_layout.ALIASES.values() for name in names)

Source = str | Path | Samples | Mapping[str, Samples]
"""The folder of a dataset, or a dataset in Python."""


def find_dataset(dataset_dir: Source) -> tuple[Found, Problems]:
    """The splits that there are, and what is wrong with where they lie.

    Raises:
        DatasetError: there is no such folder, or it is in no layout we know.
    """
    if not isinstance(dataset_dir, str | Path):
        return samples.splits_of(dataset_dir), Problems()
    if is_address(dataset_dir) and local_path(str(dataset_dir)) is None:
        return webdataset.find_remote(str(dataset_dir)), Problems()
    given = local_path(str(dataset_dir)) or Path(dataset_dir)
    if not given.exists():
        raise DatasetError(f"{given}: no such folder. Give the folder of a dataset. {_EXPECTED}")
    if not given.is_dir():
        if given.suffix.lower() in (".yaml", ".yml"):
            problems = Problems()
            return yolo.find(given.absolute(), problems), problems
        raise DatasetError(f"{given}: is a file. Give the folder of the dataset, or YOLO's data.yaml")
    return _best(given.absolute()) or _best_inside(given.absolute()) or _raise_unknown(given)


def _best(root: Path) -> tuple[Found, Problems] | None:
    best: tuple[Found, Problems] | None = None
    for found, problems in _attempts(root):
        if "train" in found:
            return found, problems
        if best is None and (found or problems.found):
            best = found, problems
    return best


def _best_inside(root: Path) -> tuple[Found, Problems] | None:
    """Of the only folder in a folder, as archives unpack to."""
    folders = [path for path in map(Path, list_folders(root)) if path.name != "__MACOSX"]
    is_split = len(folders) == 1 and folders[0].name.lower() in _SPLIT_FOLDERS
    if len(folders) != 1 or is_split or folders[0].is_symlink():
        return None
    return _best(folders[0]) or _best_inside(folders[0])


def _attempts(root: Path) -> Iterator[tuple[Found, Problems]]:
    for find in _FINDERS:
        problems = Problems()
        found: Found = {}
        try:
            found = find(root, problems)
        except OSError as error:
            problems.error(error.filename or root, f"cannot be read: {error.strerror}")
        yield found, problems


def find_split(dataset_dir: Source, split: Split) -> SplitFiles:
    """Where a split lies.

    Raises:
        DatasetError: there is no such folder, no layout we know, or no such split in it.
    """
    found, problems = find_dataset(dataset_dir)
    if split not in found:
        raise_errors(problems.found)
        raise DatasetError(missing_split(dataset_dir, split, found))
    return found[split]


def missing_split(dataset_dir: Source, split: Split, found: Found) -> str:
    return f"{called(dataset_dir)}: no split {split!r}. There is: {', '.join(found) or 'none'}"


def called(dataset_dir: Source) -> str:
    """A dataset's name in messages."""
    return str(dataset_dir) if isinstance(dataset_dir, str | Path) else "dataset_dir"


def _raise_unknown(root: Path) -> NoReturn:
    raise DatasetError(f"{root}: not a dataset in a layout we know. {_EXPECTED} Found: {_listing(root)}.{_hint(root)}")


def _listing(root: Path, limit: int = 6) -> str:
    names = sorted(path.name + "/" * path.is_dir() for path in root.iterdir())
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return (", ".join(names[:limit]) or "nothing") + more


def _hint(root: Path) -> str:
    """` Did you mean ...?` where the given folder is one level too deep or too high."""
    near = [root.resolve().parent, *sorted(path for path in root.iterdir() if path.is_dir())]
    match = next((folder for folder in near if _is_dataset(folder)), None)
    return f" Did you mean {match}?" if match else ""


def _is_dataset(folder: Path) -> bool:
    return any(found for found, _ in _attempts(folder))
