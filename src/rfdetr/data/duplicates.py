"""Pictures that are there more than once: files of equal content, and pictures that look the same.

A picture that training sees and validation scores (leakage) makes the scores worth nothing.
"""

from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import TypeVar

import numpy as np
from jaxtyping import Bool, Float32, Int8, Int64, UInt8, UInt64

from rfdetr.data.thumbnails import SIDE

_HEAD = 1 << 16  # bytes
_MOST_BITS = 10  # of 64 by which the hashes of similar pictures differ
_PARTS = 4  # of a hash: similar ones have one in common
_NEIGHBOURS = 64  # with the same part that a picture is compared with
_LEAST_CONTRAST = 3.0  # levels; below there is nothing to compare
# In units of the contrast. A copy differs by its compression everywhere, another picture of the same scene somewhere.
_MOST_DIFFERENCE, _MOST_MEAN_DIFFERENCE = 0.75, 0.12
_BLOCK = 4096
_COARSE = 8
_UNIT = 32

T = TypeVar("T")
Pairs = Int64[np.ndarray, "P 2"]


def equal_files(paths: Sequence[Path]) -> list[list[int]]:
    """Groups of files of the same content, by their rows. Only files of the same size are read."""
    groups = [list(range(len(paths)))]
    for key in (_size, _start, _content):
        groups = [part for group in groups for part in _grouped(group, [key(paths[row]) for row in group])]
    return groups


def _grouped(rows: Iterable[int], keys: Iterable[Hashable]) -> Iterator[list[int]]:
    by_key: dict[Hashable, list[int]] = defaultdict(list)
    for row, key in zip(rows, keys, strict=True):
        if key is not None:
            by_key[key].append(row)
    return (group for group in by_key.values() if len(group) > 1)


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size or None
    except OSError:
        return None


def _start(path: Path) -> bytes | None:
    try:
        with path.open("rb") as file:
            return blake2b(file.read(_HEAD), digest_size=16).digest()
    except OSError:
        return None


def _content(path: Path) -> bytes | None:
    digest = blake2b(digest_size=16)
    try:
        with path.open("rb") as file:
            while part := file.read(_HEAD):
                digest.update(part)
    except OSError:
        return None
    return digest.digest()


def similar_pairs(thumbnails: UInt8[np.ndarray, "K side side"], is_scored: Bool[np.ndarray, "K"]) -> Pairs:
    """Pairs of pictures that look the same, by their rows, each once.

    Pictures that are scored (of validation and test) also pair with others that they are mirrored or turned.
    """
    # Equal thumbnails would make pairs without number; the first of those that are scored, or not, stands for them.
    keys = [(bool(own), thumbnail.tobytes()) for own, thumbnail in zip(is_scored, thumbnails, strict=True)]
    first_of = {key: row for row, key in reversed([*enumerate(keys)])}
    stands_for = np.array([first_of[key] for key in keys], np.int64)
    rows = np.arange(len(thumbnails))
    has_contrast = _contrast(thumbnails) >= _LEAST_CONTRAST
    shown = rows[(stands_for == rows) & has_contrast]
    equal = rows[(stands_for != rows) & has_contrast]
    pairs = shown[_different_pairs(thumbnails[shown], is_scored[shown])]
    return np.concatenate([pairs, np.stack([stands_for[equal], equal], axis=1)])


def _different_pairs(thumbnails: UInt8[np.ndarray, "K side side"], is_scored: Bool[np.ndarray, "K"]) -> Pairs:
    scored = np.flatnonzero(is_scored)
    rows, looks = [np.arange(len(thumbnails))], [thumbnails]
    if 0 < len(scored) < len(thumbnails):
        rows += [scored] * 7
        looks += _turned(thumbnails[scored])
    row, look = np.concatenate(rows), np.concatenate(looks)
    is_turned = np.arange(len(row)) >= len(thumbnails)
    first, second = _alike(_hashes(look))
    is_pair = (row[first] != row[second]) & ~(is_turned[first] & is_turned[second])
    # A turned picture of validation is looked for among those of training, which is not turned.
    other = np.where(is_turned[first], second, first)
    is_pair &= ~(is_turned[first] | is_turned[second]) | ~is_scored[row[other]]
    first, second = first[is_pair], second[is_pair]
    is_same = _look_the_same(look, first, second)
    return _unique(row[first][is_same], row[second][is_same], len(thumbnails))


def _unique(first: Int64[np.ndarray, "P"], second: Int64[np.ndarray, "P"], count: int) -> Pairs:
    """Each pair of rows below `count` once, the lower row first."""
    numbers = np.unique(np.minimum(first, second) * count + np.maximum(first, second))
    return np.stack(np.divmod(numbers, max(count, 1)), axis=1)


def _turned(thumbnails: UInt8[np.ndarray, "K side side"]) -> list[UInt8[np.ndarray, "K side side"]]:
    """The other seven ways in which a square can lie."""
    quarters = [np.rot90(thumbnails, turns, axes=(1, 2)) for turns in range(4)]
    return [*quarters[1:], *(quarter[:, :, ::-1] for quarter in quarters)]


def _hashes(thumbnails: UInt8[np.ndarray, "K side side"]) -> UInt64[np.ndarray, "K"]:
    """64 bits each: where an 8 x 8 version gets brighter from left to right (dHash)."""
    cell = SIDE // 8
    means = thumbnails.reshape(-1, 8, cell, 8, cell).mean(axis=(2, 4), dtype=np.float32)
    is_brighter = np.roll(means, -1, axis=2) > means  # the last column against the first
    return np.packbits(is_brighter.reshape(-1, 64), axis=1).view(np.uint64).ravel()


def _alike(hashes: UInt64[np.ndarray, "K"]) -> tuple[Int64[np.ndarray, "P"], Int64[np.ndarray, "P"]]:
    """Pairs whose hashes have a part in common and differ little: neighbours once they are sorted by that part."""
    found: list[Pairs] = [np.zeros((0, 2), np.int64)]
    for part in range(_PARTS):
        bits = 64 // _PARTS * part
        rotated = (hashes << np.uint64(bits)) | (hashes >> np.uint64(64 - bits)) if bits else hashes
        order = np.argsort(rotated, kind="stable")
        own = rotated[order]
        parts = own >> np.uint64(64 - 64 // _PARTS)
        left = np.arange(len(own))
        for step in range(1, _NEIGHBOURS + 1):
            left = left[left + step < len(own)]
            left = left[parts[left] == parts[left + step]]
            if not len(left):
                break
            near = left[_num_bits(own[left] ^ own[left + step]) <= _MOST_BITS]
            found.append(np.stack([order[near], order[near + step]], axis=1))
    pairs = np.concatenate(found)
    pairs = _unique(pairs[:, 0], pairs[:, 1], len(hashes))
    return pairs[:, 0], pairs[:, 1]


_BITS_OF_16 = np.array([number.bit_count() for number in range(1 << 16)], np.uint8)


def _num_bits(numbers: UInt64[np.ndarray, "P"]) -> Int64[np.ndarray, "P"]:
    bits: Int64[np.ndarray, "P"] = _BITS_OF_16[numbers.view(np.uint16).reshape(-1, 4)].sum(axis=1, dtype=np.int64)
    return bits


def _look_the_same(
    thumbnails: UInt8[np.ndarray, "K side side"], first: Int64[np.ndarray, "P"], second: Int64[np.ndarray, "P"]
) -> Bool[np.ndarray, "P"]:
    """Whether pairs are the same but for brightness, contrast and what compression leaves."""
    blocks = [_normalized(thumbnails[start : start + _BLOCK]) for start in range(0, len(thumbnails), _BLOCK)]
    fine = np.concatenate([np.zeros((0, SIDE * SIDE), np.int8), *blocks])
    cell = SIDE // _COARSE
    coarse = fine.reshape(-1, _COARSE, cell, _COARSE, cell).mean(axis=(2, 4), dtype=np.float32).astype(np.int8)
    # Means of parts differ by no more than the parts do: few pairs are left to look at closely.
    left = _near(coarse.reshape(-1, _COARSE**2), first, second)
    result = np.zeros(len(first), np.bool_)
    result[left[_near(fine, first[left], second[left])]] = True
    return result


def _near(
    looks: Int8[np.ndarray, "K parts"], first: Int64[np.ndarray, "P"], second: Int64[np.ndarray, "P"]
) -> Int64[np.ndarray, "L"]:
    """Which pairs differ little."""
    found = [np.zeros(0, np.int64)]
    for start in range(0, len(first), _BLOCK):
        part = slice(start, start + _BLOCK)
        difference = np.abs(looks[first[part]].astype(np.int16) - looks[second[part]])
        is_near = difference.max(axis=1) <= _MOST_DIFFERENCE * _UNIT
        is_near &= difference.mean(axis=1, dtype=np.float32) <= _MOST_MEAN_DIFFERENCE * _UNIT
        found.append(start + np.flatnonzero(is_near))
    return np.concatenate(found)


def _normalized(thumbnails: UInt8[np.ndarray, "K side side"]) -> Int8[np.ndarray, "K pixels"]:
    """Around 0, with a contrast of `_UNIT`."""
    pixels = thumbnails.reshape(len(thumbnails), -1).astype(np.float32)
    pixels -= pixels.mean(axis=1, keepdims=True)
    pixels *= _UNIT / np.maximum(_contrast(thumbnails), 1)[:, None]
    return np.asarray(pixels.round().clip(-127, 127), np.int8)


def _contrast(thumbnails: UInt8[np.ndarray, "K side side"]) -> Float32[np.ndarray, "K"]:
    return np.asarray(thumbnails.std(axis=(1, 2), dtype=np.float32))


def groups_of(pairs: Pairs) -> list[list[int]]:
    """Rows that are linked by pairs, each group sorted."""
    group_of: dict[int, list[int]] = {}
    for one, other in pairs.tolist():
        groups = group_of.setdefault(one, [one]), group_of.setdefault(other, [other])
        if groups[0] is not groups[1]:
            fewer, more = sorted(groups, key=len)
            more += fewer
            group_of.update(dict.fromkeys(fewer, more))
    return sorted(sorted(group) for row, group in group_of.items() if row == group[0])
