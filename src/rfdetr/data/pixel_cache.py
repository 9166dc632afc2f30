"""Decoded pictures that all loader processes share, in memory or in a file: each is decoded once."""

import os
import platform
import shutil
import tempfile
from dataclasses import dataclass
from mmap import mmap
from pathlib import Path
from typing import Any, Literal
from weakref import finalize

import numpy as np
from jaxtyping import Int64

from rfdetr.console import say, size_words, warn
from rfdetr.data.resampling import FACTORS, Picture
from rfdetr.data.sources import Pictures
from rfdetr.errors import ConfigError, ImageError
from rfdetr.files import cache_folder
from rfdetr.host_memory import free_memory

Kind = Literal["ram", "disk"]

SHARE = 0.5
"""Of the memory or disk space that is free, so much is taken at most."""
_ALIGNMENT = 64  # bytes
# An entry's kind. A file that is not written yet is full of zeros.
_NOTHING = 0
_TYPES: dict[int, np.dtype[Any]] = {1: np.dtype(np.uint8), 2: np.dtype(np.uint16), 3: np.dtype(np.float32)}
_IS_LINUX = platform.system() == "Linux"
_PROBES = 10


def cached(
    pictures: Pictures,
    sizes_hw: Int64[np.ndarray, "N 2"],
    at_least: int,
    kind: Kind,
    folder: Path | None = None,
    num_processes: int = 1,
    max_bytes: int | None = None,
) -> "CachedPictures":
    """The same pictures, each decoded once for all processes that are started from now on.

    Args:
        pictures: where they come from.
        sizes_hw: of the files, upright.
        at_least: pictures are kept at the scale that this gives; loading them at another one passes the cache by.
        kind: `ram`, or `disk`: a file that no name leads to, and that ends with the processes.
        folder: of the file; None: the user's folder for such things.
        num_processes: that have a cache of their own on this machine.
        max_bytes: None: half of what is free, shared among these processes.

    Raises:
        ConfigError: the file cannot be made, or this system has no means for it.
    """
    place = cache_folder() if folder is None else folder
    needed = _bytes_of(pictures, sizes_hw, at_least)
    room = int(SHARE * _free_bytes(kind, place) / num_processes) if max_bytes is None else max_bytes
    cache = PixelCache(_offsets(needed, room), needed, _opened(kind, place))
    where = "memory" if kind == "ram" else f"a file in {place}"
    say(
        f"cache: {cache.num_places} of {len(needed)} pictures in {where}, {size_words(cache.num_bytes)} at most"
        + (f" of {size_words(int(needed.sum()))}: no more than half of what is free" * (cache.num_places < len(needed)))
    )
    return CachedPictures(pictures, cache, at_least)


@dataclass(frozen=True, eq=False)
class CachedPictures:
    """Pictures, of which those at one scale are kept."""

    pictures: Pictures
    cache: "PixelCache"
    at_least: int

    def name(self, index: int) -> str:
        return self.pictures.name(index)

    def load(self, index: int, at_least: int | None = None) -> Picture:
        """As the pictures themselves do.

        Raises:
            ImageError: it cannot be read; names it.
        """
        if at_least != self.at_least:
            return self.pictures.load(index, at_least)
        kept = self.cache.get(index)
        if kept is not None:
            return kept
        picture = self.pictures.load(index, at_least)
        self.cache.put(index, picture)
        return picture

    def configured(self, num_channels: int, max_megapixels: float | None) -> Pictures:
        """Without the cache: its pictures would be others."""
        return self.pictures.configured(num_channels, max_megapixels)

    def take(self, rows: Int64[np.ndarray, "M"]) -> Pictures:
        """Without the cache: its places would be others."""
        return self.pictures.take(rows)


class PixelCache:
    """A file in which every picture has its place from the beginning, so that nothing has to be agreed upon.

    It begins with an entry per picture: kind, height, width, channels. Who decodes a picture writes its pixels, then
    its entry; two processes that do so at once write the same. Memory and disk space are taken as it fills.
    """

    def __init__(self, offsets: Int64[np.ndarray, "N"], sizes: Int64[np.ndarray, "N"], file: "_File") -> None:
        self.offsets = offsets
        """Where each picture begins; -1: it has no place."""
        self.sizes = sizes
        """Bytes of each place."""
        placed = offsets >= 0
        self.num_places = int(placed.sum())
        self.num_bytes = int(np.max((offsets + sizes)[placed], initial=16 * len(offsets)))
        os.ftruncate(file.descriptor, self.num_bytes)
        self._take(file)

    def _take(self, file: "_File") -> None:
        self._file = file
        self._is_full = False
        # Nobody writes to it, but torch takes no memory that is for reading alone.
        self._bytes = mmap(file.descriptor, self.num_bytes)
        self._entries = np.frombuffer(self._bytes, np.int32, 4 * len(self.offsets)).reshape(-1, 4)

    def __getstate__(self) -> dict[str, Any]:
        """For processes that are not forked."""
        parts = {name: getattr(self, name) for name in ("offsets", "sizes", "num_places", "num_bytes")}
        return {**parts, "path": self._file.path}

    def __setstate__(self, state: dict[str, Any]) -> None:
        path = state.pop("path")
        vars(self).update(state)
        self._take(_File(os.open(path, os.O_RDWR), path))

    def get(self, index: int) -> Picture | None:
        """A picture, if it has been put here."""
        kind, *shape = self._entries[index].tolist()
        if kind == _NOTHING:
            return None
        height, width, channels = shape
        count, start = height * width * channels, int(self.offsets[index])
        picture: Picture = np.frombuffer(self._bytes, _TYPES[kind], count, start).reshape(shape)
        return picture

    def put(self, index: int, picture: Picture) -> None:
        """Nothing happens where it has no place, or needs a larger one than its file's size told."""
        pixels = np.ascontiguousarray(picture)
        if self.offsets[index] < 0 or pixels.nbytes > self.sizes[index] or self._is_full:
            return
        kind = next(kind for kind, dtype in _TYPES.items() if dtype == pixels.dtype)
        try:
            self._write(int(self.offsets[index]), pixels)
            self._write(16 * index, np.array([kind, *pixels.shape], np.int32))
        except OSError as error:
            self._is_full = True
            warn(f"cache: {error.strerror or error}; pictures that are not there yet are decoded each time")

    def _write(self, start: int, values: Any) -> None:
        """Not through the memory map: a full disk would end the process."""
        rest = memoryview(values).cast("B")
        while rest:
            written = os.pwrite(self._file.descriptor, rest, start)
            start, rest = start + written, rest[written:]


def _bytes_of(pictures: Pictures, sizes_hw: Int64[np.ndarray, "N 2"], at_least: int) -> Int64[np.ndarray, "N"]:
    """What each picture needs, if all are of the type and the channels of the first one that can be read."""
    factors = np.ones(len(sizes_hw), np.int64)
    for factor in reversed(FACTORS):
        factors[sizes_hw.min(axis=1) // factor >= at_least] = factor
    reduced = -(-sizes_hw // factors[:, None])
    needed: Int64[np.ndarray, "N"] = reduced.prod(axis=1) * _bytes_per_pixel(pictures, len(sizes_hw), at_least)
    return needed


def _bytes_per_pixel(pictures: Pictures, num_pictures: int, at_least: int) -> int:
    for index in range(min(num_pictures, _PROBES)):
        try:
            first = pictures.load(index, at_least)
        except ImageError:
            continue
        return int(first.itemsize * first.shape[2])
    return 3


def _offsets(sizes: Int64[np.ndarray, "N"], room: int) -> Int64[np.ndarray, "N"]:
    """Places behind the entries for as many pictures as there is room for: the smallest ones."""
    steps = -(-sizes // _ALIGNMENT) * _ALIGNMENT
    start = -(-16 * len(sizes) // _ALIGNMENT) * _ALIGNMENT
    order = np.argsort(steps, kind="stable")
    ends = start + np.cumsum(steps[order])
    offsets = np.full(len(sizes), -1, np.int64)
    fitting = order[ends <= room]
    # In the order of the images, as they lie in their folder.
    fitting.sort()
    offsets[fitting] = start + np.cumsum(steps[fitting]) - steps[fitting]
    return offsets


def _free_bytes(kind: Kind, folder: Path) -> int:
    if kind == "ram":
        return free_memory()
    folder.mkdir(parents=True, exist_ok=True)
    return shutil.disk_usage(folder).free


class _File:
    """An open file, closed when nobody needs it any more."""

    def __init__(self, descriptor: int, path: str | None = None) -> None:
        self.descriptor = descriptor
        # Under this name other processes find a file that has none, for as long as this process has it open.
        self.path = path or f"/proc/{os.getpid()}/fd/{descriptor}"
        finalize(self, os.close, descriptor)


def _opened(kind: Kind, folder: Path) -> _File:
    """A file without a name. Outside of Linux that of `ram` is one on disk, too, which the system keeps in memory.

    Raises:
        ConfigError: it cannot be made, or this system has no means for it.
    """
    if not hasattr(os, "pwrite"):
        raise ConfigError(f"cache={kind!r} is not for this system; leave it out")
    if kind == "ram" and _IS_LINUX:
        return _File(os.memfd_create("rfdetr-pictures"))
    try:
        descriptor, path = tempfile.mkstemp(prefix="rfdetr-pictures-", dir=folder)
    except OSError as error:
        raise ConfigError(f"cache={kind!r}: no file can be made in {folder}: {error.strerror or error}") from None
    if _IS_LINUX:
        Path(path).unlink()
        return _File(descriptor)
    file = _File(descriptor, path)
    finalize(file, Path(path).unlink)
    return file
