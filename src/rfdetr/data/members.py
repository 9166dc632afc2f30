"""The pictures in the tar shards of a split."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Int64

from rfdetr.data.sources import Strings

Header = tuple[tuple[int, int], tuple[int, int]] | str
"""Height and width as stored and upright, or why there are none."""


@dataclass(frozen=True, eq=False)
class Members:
    """The pictures in the shards of a split, in their order."""

    names: Strings
    places: Int64[np.ndarray, "N 3"]  # row of the shard, first byte in it, length in bytes
    sizes_hw: Int64[np.ndarray, "N 4"]  # as stored, then upright; 0 where the file is no picture
    reasons: dict[str, str]
    """Of the files that are no pictures: why, by name."""

    @cached_property
    def _row_of(self) -> dict[str, int]:
        return {name: row for row, name in enumerate(self.names)}

    def headers(self, names: Sequence[str]) -> list[Header]:
        """Of some of the pictures."""
        sizes = self.sizes_hw.tolist()
        rows = [(name, sizes[self._row_of[name]]) for name in names]
        return [self.reasons.get(name) or ((size[0], size[1]), (size[2], size[3])) for name, size in rows]

    def places_of(self, names: Sequence[str]) -> Int64[np.ndarray, "M 3"]:
        return self.places[[self._row_of[name] for name in names]].reshape(-1, 3)
