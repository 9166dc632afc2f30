"""Pictures in tar shards, read in any order like files of a folder."""

import os
from dataclasses import dataclass, replace
from functools import lru_cache
from io import BytesIO

import numpy as np
from jaxtyping import Bool, Int64

from rfdetr.data.fetching import RemoteFile
from rfdetr.data.images import decode
from rfdetr.data.resampling import Picture
from rfdetr.data.sources import Strings
from rfdetr.errors import DatasetError, ImageError

_OPEN_AT_ONCE = 64


@dataclass(frozen=True, eq=False)
class PictureShards:
    """Parts of tar files. Those at addresses are fetched when the first picture of theirs is asked for."""

    shards: tuple[str | RemoteFile, ...]
    state: int
    """Changes when a file does: those that are open are then opened anew."""
    names: Strings
    places: Int64[np.ndarray, "N 3"]  # row of the shard, first byte in it, length in bytes
    is_as_stored: Bool[np.ndarray, "N"]
    num_channels: int = 3
    max_megapixels: float | None = None

    def name(self, index: int) -> str:
        return self.names[index]

    def read(self, index: int) -> bytes:
        """The file of a picture.

        Raises:
            ImageError: it cannot be read, or its shard cannot be fetched; names both.
        """
        number, start, length = self.places[index].tolist()
        shard = self.shards[number]
        try:
            file = shard if isinstance(shard, str) else str(shard.local())
            content = os.pread(_opened(file, self.state).number, length, start)
        except DatasetError as error:
            raise ImageError(f"{self.name(index)}: {error}") from None
        except OSError as error:
            raise ImageError(f"{self.name(index)}: {shard} cannot be read: {error.strerror}") from None
        if len(content) < length:
            raise ImageError(f"{self.name(index)}: {shard} is cut off")
        return content

    def load(self, index: int, at_least: int | None = None) -> Picture:
        return decode(
            BytesIO(self.read(index)),
            self.name(index),
            num_channels=self.num_channels,
            at_least=at_least,
            upright=not self.is_as_stored[index],
            max_megapixels=self.max_megapixels,
        )

    def configured(self, num_channels: int, max_megapixels: float | None) -> "PictureShards":
        return replace(self, num_channels=num_channels, max_megapixels=max_megapixels)

    def take(self, rows: Int64[np.ndarray, "M"]) -> "PictureShards":
        return replace(
            self, names=self.names.take(rows), places=self.places[rows], is_as_stored=self.is_as_stored[rows]
        )


class _OpenFile:
    """Closed when nobody needs it any more. It has no position, so that threads and forked processes can share it."""

    def __init__(self, path: str) -> None:
        self.number = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        if hasattr(self, "number"):
            os.close(self.number)


@lru_cache(_OPEN_AT_ONCE)
def _opened(path: str, _state: int) -> _OpenFile:
    return _OpenFile(path)
