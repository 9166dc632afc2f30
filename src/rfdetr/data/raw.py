"""What the files of one split say, before any rule is applied to it: the same arrays for all formats."""

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from rfdetr.config.runs import Split
from rfdetr.data.members import Members


@dataclass(frozen=True)
class Category:
    """A class as a format names it."""

    id: int
    name: str
    supercategory: str | None = None


@dataclass(frozen=True)
class SplitFiles:
    """Where a split lies."""

    format: Literal["coco", "yolo", "voc", "csv", "webdataset", "python"]
    split: Split
    dataset_dir: Path
    """Nothing outside of it is read, symbolic links aside."""
    root: Path
    """Names of images are relative to it."""
    file: Path
    """What messages name: the file of the annotations, or the folder of many small ones."""
    watched: tuple[Path, ...]
    """Files and folders (with all that is in them) from which the split is read, the images too."""
    parts: Any = None
    """What the reader of the format needs beside."""


class Outlines:
    """The outlines of objects in the order in which they are added, packed as they come."""

    def __init__(self) -> None:
        self.polygons = array("q")  # number of polygons of each object
        self.points = array("q")  # number of points of each polygon
        self.coordinates = array("d")  # x and y in turn
        self.code_lengths = array("q")  # of each object
        self.codes = bytearray()
        self.code_sizes = array("q")  # height and width of each object's code; 0, 0 without one

    def add_polygons(self, polygons: Sequence[Sequence[float]]) -> None:
        """Of one object: [[x, y, x, y, ...], ...]; none where it has no outline."""
        self.polygons.append(len(polygons))
        for polygon in polygons:
            self.points.append(len(polygon) // 2)
            self.coordinates.extend(polygon)
        self._add_code(b"", (0, 0))

    def add_code(self, counts: bytes, size_hw: tuple[int, int]) -> None:
        """Of one object: compressed run-length code."""
        self.polygons.append(0)
        self._add_code(counts, size_hw)

    def _add_code(self, counts: bytes, size_hw: tuple[int, int]) -> None:
        self.code_lengths.append(len(counts))
        self.codes += counts
        self.code_sizes.extend(size_hw)

    def __len__(self) -> int:
        return len(self.polygons)


@dataclass
class RawSplit:
    """A split as its files have it. Readers fill it with `add_image` and `add_object`.

    Boxes are [left, top, width, height] in `unit`; they may be anything that a float can be.
    """

    files: SplitFiles
    unit: Literal["pixels", "fractions"] = "pixels"
    categories: list[Category] = field(default_factory=list)
    outlines: Outlines | None = None
    """None: not asked for. Else it has one entry for each object."""
    names: list[str] = field(default_factory=list)
    image_ids: "array[int]" = field(default_factory=lambda: array("q"))
    sizes: "array[int]" = field(default_factory=lambda: array("q"))  # height and width of each; 0, 0 where not said
    images: "array[int]" = field(default_factory=lambda: array("q"))  # row of each object's image
    labels: "array[int]" = field(default_factory=lambda: array("q"))  # row of each object's category
    boxes: "array[float]" = field(default_factory=lambda: array("d"))
    areas: "array[float]" = field(default_factory=lambda: array("d"))  # NaN where not said
    is_crowd: "array[int]" = field(default_factory=lambda: array("b"))
    has_outline: "array[int]" = field(default_factory=lambda: array("b"))
    object_ids: "array[int]" = field(default_factory=lambda: array("q"))
    """Of each object: its id, or its line where the format has no ids."""
    members: Members | None = None
    """The pictures that there are, where they lie in shards."""
    place: Callable[["RawSplit", int], str] = lambda raw, row: f"id {raw.object_ids[row]}"
    """Where the object of a row is, for messages."""

    def add_image(self, name: str, image_id: int, size_hw: tuple[int, int] = (0, 0)) -> int:
        """The row of the new image."""
        self.names.append(name)
        self.image_ids.append(image_id)
        self.sizes.extend(size_hw)
        return len(self.names) - 1

    def add_object(
        self,
        image: int,
        label: int,
        box: Sequence[float],
        object_id: int,
        *,
        area: float = float("nan"),
        is_crowd: bool = False,
        polygons: Sequence[Sequence[float]] = (),
        code: tuple[bytes, tuple[int, int]] | None = None,
        has_outline: bool | None = None,
    ) -> None:
        """The outline is polygons in the same unit as the box, [[x, y, x, y, ...], ...], or compressed run-length code
        with the (height, width) it is for.
        """
        self.images.append(image)
        self.labels.append(label)
        self.boxes.extend(box)
        self.areas.append(area)
        self.is_crowd.append(is_crowd)
        self.has_outline.append(bool(polygons or code) if has_outline is None else has_outline)
        self.object_ids.append(object_id)
        if self.outlines is not None and code:
            self.outlines.add_code(*code)
        elif self.outlines is not None:
            self.outlines.add_polygons(polygons)

    def __len__(self) -> int:
        """Number of images."""
        return len(self.names)


def column(values: "array[Any]", dtype: Any, width: int = 1) -> np.ndarray:
    """The numbers as an array [N] or [N, width] that owns its memory."""
    numbers = np.array(values, dtype=dtype)
    return numbers if width == 1 else numbers.reshape(-1, width)
