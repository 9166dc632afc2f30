"""Which pictures of a dataset are there more than once, within a split and across splits, and which cannot be read."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from rfdetr.config.runs import Split
from rfdetr.data.annotations import Annotations
from rfdetr.data.duplicates import Pairs, equal_files, groups_of, similar_pairs
from rfdetr.data.problems import Problems
from rfdetr.data.sources import PictureFiles
from rfdetr.data.thumbnails import look

SECONDS = 20.0
"""How long pictures are looked at where not all have to be."""


class Place(NamedTuple):
    """A picture of a dataset."""

    split: Split
    row: int
    name: str


@dataclass(frozen=True)
class Copies:
    """What looking at the pictures has shown. Each group has pictures that are the same."""

    looked_at: int
    num_pictures: int
    unreadable: list[tuple[Place, str]]
    """And why."""
    equal: list[list[Place]]
    """Their files are equal."""
    similar: list[list[Place]]
    """They look the same; some of them may be equal."""

    @property
    def is_sample(self) -> bool:
        return self.looked_at < self.num_pictures

    @cached_property
    def leaked(self) -> dict[tuple[Split, Split], list[tuple[Place, Place]]]:
        """Split and an earlier one -> each of its pictures that is there too, and where; equal files first."""
        found: dict[tuple[Split, Split], dict[Place, Place]] = {}
        for group in (*self.equal, *self.similar):
            first_of = {place.split: place for place in reversed(group)}
            for place in group:
                for split in EARLIER.get(place.split, ()):
                    if split in first_of:
                        found.setdefault((place.split, split), {}).setdefault(place, first_of[split])
        return {splits: list(pairs.items()) for splits, pairs in found.items()}

    def surplus(self, groups: list[list[Place]]) -> dict[Split, int]:
        """Split -> how many of its pictures are copies of others of the same split."""
        counts: dict[Split, int] = {}
        for group in groups:
            for split in {place.split for place in group}:
                more = sum(place.split == split for place in group) - 1
                if more:
                    counts[split] = counts.get(split, 0) + more
        return counts


EARLIER: Mapping[Split, tuple[Split, ...]] = {"valid": ("train",), "test": ("train", "valid")}
"""Splits whose pictures must not be in a split that is scored."""


def find_copies(splits: Mapping[Split, Annotations], in_full: bool, seconds: float = SECONDS) -> Copies:
    """Look at the pictures of all splits, at as many as time allows or, `in_full`, at all.

    A test split for which the validation split stands in, as in COCO 2017, is no split of its own.
    """
    if "valid" in splits and "test" in splits and _are_the_same(splits["valid"], splits["test"]):
        splits = {name: split for name, split in splits.items() if name != "test"}
    pictures = [split.pictures for split in splits.values()]
    lengths = [len(split) for split in splits.values()]
    places = [Place(name, row, split.pictures.name(row)) for name, split in splits.items() for row in range(len(split))]
    seen = look(pictures, lengths, None if in_full else seconds)
    is_scored = np.array([places[number].split in EARLIER for number in seen.pictures.tolist()], np.bool_)
    pairs: Pairs = seen.pictures[similar_pairs(seen.thumbnails, is_scored)].reshape(-1, 2)
    files = [
        (number, path)
        for number, path in enumerate(path for split in splits.values() for path in _paths(split))
        if path is not None
    ]
    equal = [[files[row][0] for row in group] for group in equal_files([path for _, path in files])]
    group_of = {number: index for index, group in enumerate(equal) for number in group}
    # What equal files show is said of them already.
    new = [pair for pair in pairs.tolist() if group_of.get(pair[0], -1) != group_of.get(pair[1], -2)]
    return Copies(
        looked_at=len(seen.pictures) + len(seen.unreadable),
        num_pictures=len(places),
        unreadable=[(places[number], reason) for number, reason in seen.unreadable],
        equal=[[places[number] for number in group] for group in equal],
        similar=[[places[number] for number in group] for group in groups_of(np.array(new, np.int64).reshape(-1, 2))],
    )


def _are_the_same(one: Annotations, other: Annotations) -> bool:
    return len(one) == len(other) and None not in (paths := _paths(one)) and paths == _paths(other)


def _paths(split: Annotations) -> list[Path | None]:
    """The file of each picture, where it has one of its own."""
    pictures = split.pictures
    if isinstance(pictures, PictureFiles):
        return [pictures.root / name for name in pictures.names]
    return [None] * len(split)


def report_copies(copies: Copies, splits: Mapping[Split, Annotations], problems: Problems) -> None:
    for place, reason in copies.unreadable:
        source = splits[place.split].pictures
        file = source.path(place.row) if isinstance(source, PictureFiles) else place.name
        kind = "pictures that cannot be decoded (training skips them)"
        problems.warning(file, kind, reason.replace(str(file), place.name), splits[place.split].annotation_file)
    group_of = {place: index for index, group in enumerate(copies.equal) for place in group}
    for (split, earlier), pairs in copies.leaked.items():
        for place, other in pairs:
            is_equal = group_of.get(place, -1) == group_of.get(other, -2)
            how = "are in" if is_equal else "look like ones of"
            kind = f"pictures that {how} {earlier!r} too (leakage: what is measured on them says nothing)"
            problems.warning(splits[split].annotation_file, kind, _pair(place, other))
    for group in copies.equal:
        for split in dict.fromkeys(place.split for place in group):
            first, *others = (place for place in group if place.split == split)
            for other in others:
                kind = "pictures that are there more than once (files of equal content)"
                problems.warning(splits[split].annotation_file, kind, _pair(other, first))


def _pair(one: Place, other: Place) -> str:
    return f"{one.split}/{one.name} = {other.split}/{other.name}"
