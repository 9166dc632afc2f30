"""One split as it can be used, its classes still as its own files name them."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64

from rfdetr.data.cleaning import boxes_in_pixels, check_share, usable_boxes
from rfdetr.data.headers import read_header
from rfdetr.data.locating import Located, locate
from rfdetr.data.members import Header
from rfdetr.data.outlines import usable_outlines
from rfdetr.data.problems import Problem, Problems
from rfdetr.data.raw import Category, RawSplit
from rfdetr.data.segmentations import Segmentations, offsets
from rfdetr.data.sources import Strings
from rfdetr.errors import ImageError

_HEADERS_AT_ONCE = 256


@dataclass(frozen=True, eq=False)
class SplitData:
    """Images in the order of the files; the objects of image i are the rows `offsets[i]:offsets[i + 1]`."""

    names: Strings
    image_ids: Int64[np.ndarray, "N"]
    sizes_hw: Int64[np.ndarray, "N 2"]
    is_as_stored: Bool[np.ndarray, "N"]
    offsets: Int64[np.ndarray, "N+1"]
    boxes_xywh: Float64[np.ndarray, "M 4"]
    areas: Float64[np.ndarray, "M"]
    labels: Int64[np.ndarray, "M"]  # rows of `categories`
    is_crowd: Bool[np.ndarray, "M"]
    has_outline: Bool[np.ndarray, "M"]
    segmentations: Segmentations | None
    unlisted: Strings
    """Pictures beside the others that the files say nothing of."""
    categories: list[Category]
    problems: list[Problem]
    places: Int64[np.ndarray, "N 3"] | None = None
    """Of the pictures, where they lie in shards: row of the shard, first byte, bytes."""


def use(raw: RawSplit, problems: Problems) -> SplitData:
    """Look for the pictures, and apply the rules for what the files say."""
    file = raw.files.file
    stated = np.array(raw.sizes, np.int64).reshape(-1, 2)
    if raw.files.format == "python":
        located, sizes_hw, is_as_stored = Located(raw.names, []), stated, np.zeros(len(raw), np.bool_)
    else:
        located = locate(raw.names, raw.files, problems, None if raw.members is None else raw.members.names)
        sizes_hw, is_as_stored = _look_at_headers(located, stated, raw, problems)
    is_usable = sizes_hw[:, 0] > 0
    check_share("images", len(raw), int(is_usable.sum()), raw, problems)

    images, labels = np.array(raw.images, np.int64), np.array(raw.labels, np.int64)
    is_known = (images >= 0) & (labels >= 0)
    is_known[is_known] = is_usable[images[is_known]]
    own_sizes = sizes_hw[images] if len(raw) else np.zeros((len(images), 2), np.int64)
    boxes, areas = boxes_in_pixels(raw, own_sizes), np.array(raw.areas, np.float64)

    def place(row: int) -> str:
        return raw.place(raw, row)

    is_used = usable_boxes(boxes, areas, own_sizes, is_known, place, raw, problems)
    on_usable = int(is_usable[images[images >= 0]].sum() + (images < 0).sum())
    check_share("objects", on_usable, int(is_used.sum()), raw, problems)
    _check_ids(raw, problems)
    outlines = usable_outlines(raw, np.where(is_used[:, None], boxes, 0), own_sizes, is_used, place, problems)

    rows = np.flatnonzero(is_used)
    rows = rows[np.argsort(images[rows], kind="stable")]  # objects of an image together, else in the order of the file
    kept = np.flatnonzero(is_usable)
    if not len(kept) and not problems.has_errors:
        problems.error(file, "no image can be used" if len(raw) else "no images")
    areas = np.where(np.isnan(areas), np.where(is_used[:, None], boxes[:, 2:], 0).prod(axis=1), areas)
    names = [located.names[row] for row in kept.tolist()]
    return SplitData(
        names=Strings.pack(names),
        image_ids=np.array(raw.image_ids, np.int64)[kept],
        sizes_hw=sizes_hw[kept],
        is_as_stored=is_as_stored[kept],
        offsets=offsets(np.bincount(images[rows], minlength=len(raw))[kept]),
        boxes_xywh=boxes[rows],
        areas=areas[rows],
        labels=labels[rows],
        is_crowd=np.array(raw.is_crowd, np.bool_)[rows],
        has_outline=np.array(raw.has_outline, np.bool_)[rows],
        segmentations=None if outlines is None else outlines.take(rows),
        unlisted=Strings.pack(located.unlisted),
        categories=raw.categories,
        problems=problems.found,
        places=None if raw.members is None else raw.members.places_of(names),
    )


def _check_ids(raw: RawSplit, problems: Problems) -> None:
    if raw.files.format in ("coco", "webdataset"):
        values, counts = np.unique(np.array(raw.object_ids, np.int64), return_counts=True)
        for value in values[(counts > 1) & (values > -(2**62))].tolist():
            problems.warning(raw.files.file, "ids of annotations used more than once (all count)", str(value))


def _look_at_headers(
    located: Located, stated: Int64[np.ndarray, "N 2"], raw: RawSplit, problems: Problems
) -> tuple[Int64[np.ndarray, "N 2"], Bool[np.ndarray, "N"]]:
    """Height and width that the boxes of each image refer to (0, 0: it cannot be used), and whether as it is stored."""
    names = [name for name in located.names if name]
    found = iter(_headers_of_files(raw.files.root, names) if raw.members is None else raw.members.headers(names))
    sizes_hw, is_as_stored = np.zeros((len(raw), 2), np.int64), np.zeros(len(raw), np.bool_)
    file = raw.files.file
    for row, name in enumerate(located.names):
        if not name:
            continue
        header = next(found)
        if isinstance(header, str):
            problems.warning(raw.files.root / name, "pictures that cannot be used (left out)", header, raw.files.root)
            continue
        stored, upright = header
        wanted = tuple(stated[row].tolist())
        if wanted in ((0, 0), upright):
            sizes_hw[row] = upright
        elif wanted == stored:
            sizes_hw[row], is_as_stored[row] = stored, True
            problems.warning(file, "pictures whose boxes were drawn without their EXIF orientation (used so)", name)
        else:
            problems.warning(
                raw.files.root / name,
                "pictures of another size than listed, so that their boxes would be misplaced (left out)",
                f"{name} is {upright[1]} x {upright[0]} pixels, listed as {wanted[1]} x {wanted[0]}",
                file,
            )
    return sizes_hw, is_as_stored


def _headers_of_files(root: Path, names: list[str]) -> list[Header]:
    with ThreadPoolExecutor() as pool:
        starts = range(0, len(names), _HEADERS_AT_ONCE)
        parts = pool.map(lambda start: _headers(root, names[start : start + _HEADERS_AT_ONCE]), starts)
        return [header for part in parts for header in part]


def _headers(root: Path, names: list[str]) -> list[Header]:
    return [_header(root, name) for name in names]


def _header(root: Path, name: str) -> Header:
    try:
        header = read_header(root / name, name)
    except ImageError as error:
        return str(error)
    return header.size_hw, header.upright_size_hw


def to_arrays(data: SplitData) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """All that a file has to hold: arrays, and what JSON can say."""
    arrays = {name: value for name, value in vars(data).items() if isinstance(value, np.ndarray)}
    for name in ("names", "unlisted", "segmentations"):
        part = getattr(data, name)
        if part is not None:
            arrays |= {f"{name}.{key}": value for key, value in vars(part).items()}
    facts = {
        "categories": [vars(category) for category in data.categories],
        "problems": [vars(problem) for problem in data.problems],
    }
    return arrays, facts


def from_arrays(arrays: dict[str, np.ndarray], facts: dict[str, Any]) -> SplitData:
    own = {name: value for name, value in arrays.items() if "." not in name}
    has_masks = "segmentations.points" in arrays
    return SplitData(
        **own,
        names=Strings(**_part(arrays, "names")),
        unlisted=Strings(**_part(arrays, "unlisted")),
        segmentations=Segmentations(**_part(arrays, "segmentations")) if has_masks else None,
        categories=_all(Category, facts["categories"]),
        problems=_all(Problem, facts["problems"]),
    )


def _part(arrays: dict[str, np.ndarray], name: str) -> dict[str, np.ndarray]:
    return {key.removeprefix(f"{name}."): value for key, value in arrays.items() if key.startswith(f"{name}.")}


def _all(kind: Any, rows: Iterable[dict[str, Any]]) -> list[Any]:
    return [kind(**row) for row in rows]
