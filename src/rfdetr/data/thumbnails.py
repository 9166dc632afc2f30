"""Small grey versions of pictures by which copies are known, read at reduced scale, as many as time allows."""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import monotonic

import numpy as np
from jaxtyping import Int64, UInt8
from PIL import Image

from rfdetr.data.images import to_eight_bits
from rfdetr.data.sources import Pictures
from rfdetr.errors import ImageError

SIDE = 32
"""Pixels of a thumbnail, whose picture is squeezed to a square."""
_AT_ONCE = 32
_SEED = 0

Thumbnail = UInt8[np.ndarray, "side side"]


@dataclass(frozen=True, eq=False)
class Look:
    """What was seen of the pictures of several splits, which are numbered one behind the other."""

    pictures: Int64[np.ndarray, "K"]
    """Numbers of those that were looked at and could be read."""
    thumbnails: UInt8[np.ndarray, "K side side"]
    unreadable: list[tuple[int, str]]
    """Numbers of those that could not, and why."""


def look(splits: Sequence[Pictures], lengths: Sequence[int], seconds: float | None) -> Look:
    """Look at all pictures, in full where `seconds` is None, else reduced and until the time is over."""
    deadline = None if seconds is None else monotonic() + seconds
    order = _order(lengths)
    chunks = [order[start : start + _AT_ONCE] for start in range(0, len(order), _AT_ONCE)]

    def work(chunk: Sequence[tuple[int, int, int]]) -> list[tuple[int, Thumbnail | str]]:
        if deadline is not None and monotonic() > deadline:
            return []
        return [(number, _thumbnail(splits[split], row, deadline is None)) for number, split, row in chunk]

    with ThreadPoolExecutor() as pool:
        return _collect(pool.map(work, chunks))


def _order(lengths: Sequence[int]) -> list[tuple[int, int, int]]:
    """Number, split and row of all pictures: the first ones are a fair sample of each split."""
    rng, start, places = np.random.default_rng(_SEED), 0, []
    for split, length in enumerate(lengths):
        rows = rng.permutation(length).tolist()
        places += [(turn, start + row, split, row) for turn, row in enumerate(rows)]
        start += length
    return [place[1:] for place in sorted(places)]


def _collect(parts: Iterable[list[tuple[int, Thumbnail | str]]]) -> Look:
    seen: dict[int, Thumbnail] = {}
    unreadable: list[tuple[int, str]] = []
    for part in parts:
        for number, found in part:
            if isinstance(found, str):
                unreadable.append((number, found))
            else:
                seen[number] = found
    numbers = sorted(seen)
    thumbnails = np.array([seen[number] for number in numbers], np.uint8).reshape(-1, SIDE, SIDE)
    return Look(np.array(numbers, np.int64), thumbnails, sorted(unreadable))


def _thumbnail(pictures: Pictures, row: int, in_full: bool) -> Thumbnail | str:
    try:
        picture = to_eight_bits(pictures.load(row, None if in_full else SIDE))
    except ImageError as error:
        return str(error)
    return np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BILINEAR).convert("L"))
