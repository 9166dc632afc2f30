"""A dataset in any format that is read, written as COCO, YOLO or tar shards."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rfdetr.config.datasets import ConvertConfig
from rfdetr.config.runs import Split as SplitName
from rfdetr.console import say, warn
from rfdetr.data.annotations import Annotations
from rfdetr.data.fetching import is_address, local_path
from rfdetr.data.outlines import MISSING
from rfdetr.data.problems import settle
from rfdetr.data.reading import Dataset, read_dataset
from rfdetr.data.sources import PictureFiles
from rfdetr.data.writing import coco, shards, yolo
from rfdetr.data.writing.coco import Split
from rfdetr.data.writing.pictures import stored
from rfdetr.errors import ConfigError


def convert(config: ConvertConfig) -> None:
    """Write the dataset anew; what the new format cannot hold is said. The dataset itself stays as it is.

    Raises:
        ConfigError: the output cannot be written, is not empty, or lies in the dataset.
        DatasetError: the dataset has errors; names them all.
        ImageError: a picture cannot be read any more; names it.
    """
    output = Path(config.output_dir).absolute()
    dataset_dir = _plain(config.dataset_dir)
    _check_output(output, dataset_dir)
    dataset = read_dataset(dataset_dir)
    settle(dataset.problems)
    splits = _splits(dataset, dataset_dir, config.outlines)
    for split in splits.values():
        if isinstance(split.pictures, PictureFiles):
            _check_apart(output, split.pictures.root)
    try:
        with new_folder(output) as folder:
            for name, split in splits.items():
                _write(config, name, split, folder)
            if config.to == "yolo":
                yolo.write_data_file(folder, list(splits), dataset.classes)
    except OSError as error:
        raise ConfigError(f"output_dir: {output}: cannot be written: {error.strerror or error}") from None
    say(f"written: {output}")


def _plain(dataset_dir: str | Path) -> str | Path:
    if is_address(dataset_dir):
        return local_path(str(dataset_dir)) or dataset_dir
    return Path(dataset_dir)


def _check_output(output: Path, dataset_dir: str | Path) -> None:
    """Raises:
    ConfigError: there is something already, or it lies in the dataset.
    """
    if output.is_symlink() or (output.exists() and not (output.is_dir() and not any(output.iterdir()))):
        raise ConfigError(f"output_dir: {output} is there already. Name a folder that is not, or an empty one")
    if isinstance(dataset_dir, Path):
        _check_apart(output, dataset_dir.parent if dataset_dir.is_file() else dataset_dir)


def _check_apart(output: Path, root: Path) -> None:
    if output.resolve().is_relative_to(root.resolve()):
        raise ConfigError(f"output_dir: {output} lies in the dataset {root}, whose files are never changed")


def _splits(dataset: Dataset, dataset_dir: str | Path, outlines: bool) -> dict[SplitName, Split]:
    """What is written of each split, with outlines where there are any; says the warnings about these.

    Raises:
        DatasetError: none of the outlines of a split can be used, or its pictures are no files.
    """
    outlined = [name for name, data in dataset.data.items() if outlines and data.has_outline.any()]
    # The others are not read so: every object would be reported as lacking its outline.
    full = read_dataset(dataset_dir, outlined, masks=True) if outlined else None
    known = set(dataset.problems)
    problems = full.problems if full else []
    settle(problem for problem in problems if problem not in known and not problem.message.startswith(MISSING))
    splits: dict[SplitName, Split] = {}
    for name, annotations in dataset.splits.items():
        own: Annotations = full.splits[name].with_classes(dataset.classes) if full and name in outlined else annotations
        splits[name] = Split(own, stored(own), dataset.data[name].has_outline)
    return splits


def _write(config: ConvertConfig, name: SplitName, split: Split, folder: Path) -> None:
    problems: list[str] = []
    if config.shards is not None:
        shards.write_split(split, folder / name, config.shards, problems)
    elif config.to == "coco":
        coco.write_split(split, folder / name, config.link, problems)
    else:
        yolo.write_split(split, name, folder, config.link, problems)
    say(f"{name}: {len(split.annotations)} images, {len(split.annotations.labels)} objects")
    for problem in problems:
        warn(f"{name}: {problem}")


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder to fill that gets its name when it is full, or is removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part"))
    try:
        folder = temporary / "dataset"
        folder.mkdir()  # mkdtemp makes folders that only their owner can read
        yield folder
        os.replace(folder, path)  # noqa: PTH105 - also over an empty folder
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
