"""Which pictures lie where in the tar shards of a split: what makes shards as quick to open as a folder."""

import json
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from io import BytesIO
from itertools import takewhile
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from rfdetr.data.formats.folders import suffix_of
from rfdetr.data.headers import read_header
from rfdetr.data.json_stream import read_lists
from rfdetr.data.locating import IMAGE_SUFFIXES
from rfdetr.data.members import Members
from rfdetr.data.sources import Strings
from rfdetr.errors import DatasetError, ImageError

INDEX = "_shards.json"
_REBUILD = "Delete it, and it is made anew from the shards"


@dataclass(frozen=True)
class Shard:
    """A file of a split, beside its index."""

    name: str
    bytes: int
    digest: str
    """Of the content: BLAKE2b of 128 bits, in hexadecimal."""


@dataclass(frozen=True, eq=False)
class ShardIndex:
    shards: tuple[Shard, ...]
    annotations: Shard | None
    """The annotation file; None: not known."""
    members: Members


def described(file: Path) -> Shard:
    digest = blake2b(digest_size=16)
    with file.open("rb") as content:
        while part := content.read(2**20):
            digest.update(part)
    return Shard(file.name, file.stat().st_size, digest.hexdigest())


def make_index(files: Sequence[Path], annotations: Path | None = None) -> ShardIndex:
    """Read the headers of tar files, and of the pictures in them.

    Raises:
        DatasetError: a file is no tar file, or cut off; names it.
    """
    rows = [[name, number, *rest] for number, file in enumerate(files) for name, *rest in _pictures(file)]
    known = None if annotations is None else described(annotations)
    return ShardIndex(tuple(map(described, files)), known, _members(rows))


def _pictures(file: Path) -> Iterator[tuple[str, int, int, list[int] | str]]:
    """Name, first byte, bytes and sizes of each picture of a shard; instead of sizes, why there are none."""
    try:
        with tarfile.open(file, "r:") as tar:
            for name, member in _named(tar):
                content = tar.extractfile(member)
                yield name, member.offset_data, member.size, _sizes(name, content.read() if content else b"")
            _check_end(tar, file)
    except (tarfile.TarError, EOFError) as error:
        raise DatasetError(f"{file}: not a whole tar file: {error}. Copy it anew") from None
    except OSError as error:
        raise DatasetError(f"{file}: cannot be read: {error.strerror or error}") from None


def _named(tar: tarfile.TarFile) -> Iterator[tuple[str, tarfile.TarInfo]]:
    """The pictures, by the names that the JSON files of their samples give them; without one, by their own."""
    names: dict[str, str] = {}
    pictures: dict[str, tarfile.TarInfo] = {}
    for member in tar:
        key, _, suffix = member.name.rpartition(".")
        if suffix == "json":
            content = tar.extractfile(member)
            names[key] = _file_name(content.read() if content else b"", member.name)
        elif member.isfile() and suffix_of(member.name) in IMAGE_SUFFIXES:
            pictures[key] = member
        if key in names and key in pictures:
            yield names.pop(key), pictures.pop(key)
    for member in pictures.values():
        yield member.name, member


def _file_name(content: bytes, own: str) -> str:
    try:
        return str(json.loads(content)["file_name"])
    except (ValueError, LookupError, TypeError):
        return own


def _check_end(tar: tarfile.TarFile, file: Path) -> None:
    """Python reads a file as whole that ends between two members, or within the last one."""
    last = tar.getmembers()[-1] if tar.getmembers() else None
    end = 0 if last is None else last.offset_data + last.size
    if file.stat().st_size < end + 1024:
        raise tarfile.ReadError("it ends too early")


def _sizes(name: str, content: bytes) -> list[int] | str:
    try:
        header = read_header(BytesIO(content), name)
    except ImageError as error:
        return str(error)
    return [*header.size_hw, *header.upright_size_hw]


def _members(rows: Sequence[Sequence[Any]]) -> Members:
    """Of rows [name, shard, first byte, bytes, sizes or reason]."""
    return Members(
        Strings.pack(row[0] for row in rows),
        np.array([row[1:4] for row in rows], np.int64).reshape(-1, 3),
        np.array([[0] * 4 if isinstance(row[4], str) else row[4] for row in rows], np.int64).reshape(-1, 4),
        {row[0]: row[4] for row in rows if isinstance(row[4], str)},
    )


def write_index(index: ShardIndex, file: Path) -> None:
    """A line for each file and each picture: [name, shard, first byte, bytes, sizes or reason]."""
    members = index.members
    places, sizes = members.places.tolist(), members.sizes_hw.tolist()
    known = [index.annotations] if index.annotations else []
    with file.open("w", encoding="ascii") as text:
        for start, files in (('{"annotations": [\n', known), ('],\n"shards": [\n', index.shards)):
            text.write(start + ",\n".join(json.dumps(vars(part)) for part in files))
        text.write('],\n"members": [')
        separator = "\n"
        for name, place, size in zip(members.names, places, sizes, strict=True):
            text.write(separator + json.dumps([name, *place, members.reasons.get(name, size)]))
            separator = ",\n"
        text.write("]}\n")


def read_files(file: Path) -> tuple[Shard | None, tuple[Shard, ...]]:
    """The annotation file and the shards that an index names, which stand at its beginning.

    Raises:
        DatasetError: the file cannot be read, or is no index; names it.
    """
    tables = ("annotations", "shards", "members")
    found: dict[str, list[Shard]] = {"annotations": [], "shards": []}
    try:
        for table, entry in takewhile(lambda row: row[0] != "members", read_lists(file, tables)):
            if entry is not None:
                found[table].append(Shard(str(entry["name"]), int(entry["bytes"]), str(entry["digest"])))
    except (TypeError, ValueError, LookupError):
        raise DatasetError(f"{file}: not an index of shards. {_REBUILD}") from None
    for shard in (*found["annotations"], *found["shards"]):
        if PurePosixPath(shard.name).name != shard.name or not shard.digest.isalnum():
            raise DatasetError(f"{file}: names files outside of its folder: {shard.name!r}")
    return next(iter(found["annotations"]), None), tuple(found["shards"])


def read_index(file: Path) -> ShardIndex:
    """Raises:
    DatasetError: the file cannot be read, or is no index; names it.
    """
    annotations, shards = read_files(file)
    try:
        members = _members([row for _, row in read_lists(file, ("members",)) if row is not None])
        is_known = not len(members.names) or ((members.places >= 0).all() and members.places[:, 0].max() < len(shards))
    except (TypeError, ValueError, LookupError, AttributeError, OverflowError):
        is_known = False
    if not is_known:
        raise DatasetError(f"{file}: not an index of shards. {_REBUILD}")
    return ShardIndex(shards, annotations, members)
