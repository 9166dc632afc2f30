"""Which files of a folder make up a split."""

from pathlib import Path

from rfdetr.config.runs import Split
from rfdetr.errors import DatasetError

ANNOTATION_FILE = "_annotations.coco.json"
SPLITS: tuple[Split, ...] = ("train", "valid", "test")
# COCO 2017 keeps the boxes of its test split to itself; its validation split stands in.
_COCO_2017: dict[Split, str] = {"train": "train2017", "valid": "val2017", "test": "val2017"}
_EXPECTED = (
    f"Expected train/, valid/ (or val/) and test/, each with {ANNOTATION_FILE} beside its images, "
    "or COCO 2017's train2017/, val2017/ and annotations/instances_{train,val}2017.json."
)


def find_split(dataset_dir: str | Path, split: Split) -> tuple[Path, Path]:
    """The folder of a split's images and its annotation file.

    Raises:
        DatasetError: there is no such folder, no layout we know, or no such split in it.
    """
    found = _locate(Path(dataset_dir), split)
    if found is None:
        raise DatasetError(_reason(Path(dataset_dir), split))
    return found


def has_split(dataset_dir: str | Path, split: Split) -> bool:
    return _locate(Path(dataset_dir), split) is not None


def _candidates(root: Path, split: Split) -> list[tuple[Path, Path]]:
    """Where a split may be: (image folder, annotation file)."""
    folders = [root / name for name in (("valid", "val") if split == "valid" else (split,))]
    coco = _COCO_2017[split]
    return [
        *((folder, folder / ANNOTATION_FILE) for folder in folders),
        (root / coco, root / "annotations" / f"instances_{coco}.json"),
    ]


def _locate(root: Path, split: Split) -> tuple[Path, Path] | None:
    return next((pair for pair in _candidates(root, split) if pair[0].is_dir() and pair[1].is_file()), None)


def _reason(root: Path, split: Split) -> str:
    if not root.exists():
        return f"{root}: no such folder. The dataset folder must hold train/, valid/ and test/"
    if not root.is_dir():
        return f"{root}: is a file. Give the folder that holds train/, valid/ and test/"
    halves = [pair for pair in _candidates(root, split) if pair[0].is_dir() or pair[1].is_file()]
    if halves:
        folder, file = halves[0]
        return f"{root}: split {split!r} is incomplete: no {file if folder.is_dir() else folder}"
    existing = [name for name in SPLITS if has_split(root, name)]
    if existing:
        return f"{root}: no split {split!r}. There is: {', '.join(existing)}"
    return f"{root}: not a dataset in a layout we know. {_EXPECTED} Found: {_listing(root)}.{_hint(root)}"


def _listing(root: Path, limit: int = 6) -> str:
    names = sorted(path.name + "/" * path.is_dir() for path in root.iterdir())
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return (", ".join(names[:limit]) or "nothing") + more


def _hint(root: Path) -> str:
    """` Did you mean ...?` where the given folder is one level too deep or too high."""
    near = [root.resolve().parent, *sorted(path for path in root.iterdir() if path.is_dir())]
    match = next((folder for folder in near if any(has_split(folder, split) for split in SPLITS)), None)
    return f" Did you mean {match}?" if match else ""
