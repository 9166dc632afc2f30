"""Tar shards as `rfdetr convert --shards` writes them: pictures in tar files, beside them a COCO file and an index."""

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np

from rfdetr.config.runs import Split
from rfdetr.data.fetching import RemoteFile, fetch_current
from rfdetr.data.formats import coco
from rfdetr.data.formats.coco_layout import ALIASES, ROBOFLOW
from rfdetr.data.formats.folders import list_files
from rfdetr.data.problems import Problems
from rfdetr.data.raw import Outlines, RawSplit, SplitFiles
from rfdetr.data.shard_index import INDEX, Shard, make_index, read_files, read_index, write_index
from rfdetr.data.shards import PictureShards
from rfdetr.data.split_data import SplitData
from rfdetr.errors import DatasetError
from rfdetr.files import cache_folder, write_atomically


@dataclass(frozen=True)
class ShardParts:
    """The files of a split."""

    index: Path
    """It, or where it is made anew."""
    shards: tuple[Path | RemoteFile, ...]


def find(root: Path, problems: Problems) -> dict[Split, SplitFiles]:  # noqa: ARG001 - what is wrong shows in `read`
    """`train/`, `valid/` or `val/`, `test/`, each with tar files, a COCO file, and an index or none."""
    found: dict[Split, SplitFiles] = {}
    for split, names in ALIASES.items():
        for folder in (root / name for name in names if (root / name).is_dir()):
            tars = [folder / name for name in list_files(folder) if name.endswith(".tar")]
            if (tars or (folder / INDEX).is_file()) and split not in found:
                parts = _parts(folder, tars)
                found[split] = SplitFiles("webdataset", split, root, folder, folder / ROBOFLOW, (folder,), parts)
    return found


def _parts(folder: Path, tars: list[Path]) -> ShardParts:
    index = folder / INDEX
    if not index.is_file():
        return ShardParts(_kept_index(tars), tuple(tars))
    try:
        return ShardParts(index, tuple(folder / shard.name for shard in read_files(index)[1]))
    except DatasetError:
        return ShardParts(index, tuple(tars))


def _check_shards(parts: ShardParts) -> None:
    """Raises:
    DatasetError: files that an index names are not there, or of another length.
    """
    shards = read_files(parts.index)[1]
    local = [file for file in parts.shards if isinstance(file, Path)]
    sizes = {file.name: file.stat().st_size if file.is_file() else None for file in local}
    wrong = [(shard.name, sizes[shard.name]) for shard in shards if shard.bytes != sizes.get(shard.name, shard.bytes)]
    if wrong or not shards:
        some = [f"{name} is missing" if size is None else f"{name} has {size} bytes" for name, size in wrong[:3]]
        raise DatasetError(
            f"{parts.index}: {len(wrong)} of {len(shards)} shards are not as it says: {', '.join(some)}"
            f"{', ...' * (len(wrong) > 3)}. Copy them anew; or delete the index, to use what there is"
        )


def _kept_index(tars: list[Path]) -> Path:
    """Where an index is kept that the dataset does not bring; the dataset itself is left as it is."""
    states = [(str(file), stat.st_size, stat.st_mtime_ns) for file in tars for stat in [file.stat()]]
    return (
        cache_folder() / "shards" / f"{blake2b(repr(states).encode(errors='replace'), digest_size=16).hexdigest()}.json"
    )


def find_remote(address: str) -> dict[Split, SplitFiles]:
    """The splits of a dataset of shards at an address. Their annotations are fetched, their pictures are not yet.

    Raises:
        DatasetError: there are none, or they cannot be fetched; names the address.
    """
    address = address.rstrip("/")
    found = {split: files for split, names in ALIASES.items() for files in _remote(address, split, names)}
    if not found:
        raise DatasetError(
            f"{address}: no train/{INDEX}. From an address, datasets of tar shards are read: make one of a "
            "folder with `rfdetr convert FOLDER SHARDS --shards 1000`, and copy it there"
        )
    return found


def _remote(address: str, split: Split, names: tuple[str, ...]) -> Iterator[SplitFiles]:
    for name in names:
        folder = f"{address}/{name}"
        index = fetch_current(f"{folder}/{INDEX}")
        if index is None:
            continue
        annotations, shards = read_files(index)
        if annotations is None:
            raise DatasetError(f"{folder}/{INDEX}: does not say which annotations belong to it")
        file = _file(folder, annotations).local()
        parts = ShardParts(index, tuple(_file(folder, shard) for shard in shards))
        yield SplitFiles("webdataset", split, index.parent, index.parent, file, (file, index), parts)
        return


def _file(folder: str, file: Shard) -> RemoteFile:
    return RemoteFile(f"{folder}/{file.name}", file.bytes, file.digest)


def read(files: SplitFiles, masks: bool, problems: Problems) -> RawSplit:
    """What the COCO file says, and where its pictures are."""
    parts: ShardParts = files.parts
    try:
        if not files.file.is_file():
            raise DatasetError(f"{files.root}: tar files without {ROBOFLOW}, which says what is in their pictures")
        if not parts.index.is_file():
            tars = _here(parts)
            write_atomically(parts.index, lambda temporary: write_index(make_index(tars), temporary))
        _check_shards(parts)
        members = read_index(parts.index).members
    except DatasetError as error:
        file, _, reason = str(error).partition(": ")
        problems.error(file, reason)
        return RawSplit(files, outlines=Outlines() if masks else None)
    raw = coco.read(files, masks, problems)
    raw.members = members
    return raw


def _here(parts: ShardParts) -> list[Path]:
    return [file for file in parts.shards if isinstance(file, Path) and file.is_file()]


def pictures(files: SplitFiles, data: SplitData) -> PictureShards:
    parts: ShardParts = files.parts
    places = np.empty((0, 3), np.int64) if data.places is None else data.places
    return PictureShards(
        shards=tuple(str(file) if isinstance(file, Path) else file for file in parts.shards),
        state=hash(tuple(file.stat().st_mtime_ns for file in _here(parts))),
        names=data.names,
        places=places,
        is_as_stored=data.is_as_stored,
    )
