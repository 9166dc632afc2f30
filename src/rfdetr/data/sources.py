"""Where pictures come from: files of a folder."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Int64, UInt8
from typing_extensions import Self

from rfdetr.data.images import decode
from rfdetr.data.resampling import Picture


@runtime_checkable
class Pictures(Protocol):
    """The pictures of a split, by their rows in its annotations."""

    def name(self, index: int) -> str:
        """What messages and captions call it."""
        ...

    def load(self, index: int, at_least: int | None = None) -> Picture:
        """The picture, upright as its boxes were drawn; maybe at 1/2, 1/4 or 1/8, no side shorter than `at_least`.

        Raises:
            ImageError: it cannot be read; names it.
        """
        ...

    def configured(self, num_channels: int, max_megapixels: float | None) -> "Pictures":
        """The same pictures with so many channels; larger ones are refused."""
        ...

    def take(self, rows: Int64[np.ndarray, "M"]) -> "Pictures":
        """Some of them, in the given order."""
        ...


@dataclass(frozen=True, eq=False)
class Strings:
    """Any number of strings in two arrays: loader processes share them without copying."""

    text: UInt8[np.ndarray, "B"]  # UTF-8
    offsets: Int64[np.ndarray, "N+1"]

    @classmethod
    def pack(cls, strings: Iterable[str]) -> Self:
        # Names of files that are not text come as lone surrogates.
        encoded = [string.encode("utf-8", "surrogateescape") for string in strings]
        offsets = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
        return cls(np.frombuffer(b"".join(encoded), dtype=np.uint8), offsets)

    def __getitem__(self, index: int) -> str:
        part = self.text[self.offsets[index] : self.offsets[index + 1]]
        return part.tobytes().decode("utf-8", "surrogateescape")

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __iter__(self) -> Iterator[str]:
        return (self[index] for index in range(len(self)))

    def take(self, rows: Int64[np.ndarray, "M"]) -> "Strings":
        return Strings.pack(self[row] for row in rows.tolist())


@dataclass(frozen=True, eq=False)
class PictureFiles:
    """Files below a folder."""

    root: Path
    names: Strings
    is_as_stored: Bool[np.ndarray, "N"]
    """Whether boxes were drawn on the picture as it is stored, not turned as its EXIF orientation says."""
    num_channels: int = 3
    max_megapixels: float | None = None

    def name(self, index: int) -> str:
        return self.names[index]

    def path(self, index: int) -> Path:
        return self.root / self.names[index]

    def load(self, index: int, at_least: int | None = None) -> Picture:
        return decode(
            self.path(index),
            num_channels=self.num_channels,
            at_least=at_least,
            upright=not self.is_as_stored[index],
            max_megapixels=self.max_megapixels,
        )

    def configured(self, num_channels: int, max_megapixels: float | None) -> "PictureFiles":
        return replace(self, num_channels=num_channels, max_megapixels=max_megapixels)

    def take(self, rows: Int64[np.ndarray, "M"]) -> "PictureFiles":
        return replace(self, names=self.names.take(rows), is_as_stored=self.is_as_stored[rows])
