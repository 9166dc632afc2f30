"""Datasets that are objects in Python: any sequence of (image, boxes, labels) or (image, boxes, labels, masks).

- image: a PIL image, an array [H, W] or [H, W, C] or a torch tensor [C, H, W] of uint8, uint16 or floating-point
  numbers in [0, 1], or a file's path
- boxes: [N, 4], xyxy in pixels
- labels: [N] whole numbers from 0, or names of classes
- masks: [N, H, W] of booleans, 0 or 1; only segmentation models look at them

What a torch.utils.data.Dataset of torch tensors gives is as good. The names of the classes are its `classes`, if it has
that attribute; else the labels that are names, sorted; else `class 0`, `class 1`, ...

Every sample is asked for once at the start, for its boxes, and its picture again whenever it is used: a dataset has to
give the same each time, so augmentation has no place in it (use `augment`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64, Shaped
from PIL import Image

from rfdetr import masks as mask_ops
from rfdetr.config.runs import Split
from rfdetr.config.values import Samples, name_of_callable
from rfdetr.data.headers import read_header
from rfdetr.data.images import array_picture, decode, reasons, to_picture
from rfdetr.data.problems import Problems, brief
from rfdetr.data.raw import Category, Outlines, RawSplit, SplitFiles
from rfdetr.data.resampling import Picture, picture_hw, reduce, reduction


def splits_of(dataset: Samples | Mapping[str, Samples]) -> dict[Split, SplitFiles]:
    """A sequence by itself is the training split."""
    named = dataset if isinstance(dataset, Mapping) else {"train": dataset}
    found: dict[Split, SplitFiles] = {}
    for name, own in named.items():
        split: Split = "valid" if name == "val" else name  # type: ignore[assignment]
        where = Path(f"{name_of_callable(own)} ({split})")
        found[split] = SplitFiles("python", split, where, where, where, (), own)
    return found


@dataclass(frozen=True, eq=False)
class SamplePictures:
    """The pictures of some samples."""

    samples: Samples
    rows: Int64[np.ndarray, "N"]
    num_channels: int = 3
    max_megapixels: float | None = None

    def name(self, index: int) -> str:
        return f"sample {self.rows[index]} of {name_of_callable(self.samples)}"

    def load(self, index: int, at_least: int | None = None) -> Picture:
        given = self.samples[int(self.rows[index])][0]
        with reasons(self.name(index)):
            return _picture(given, self.num_channels, at_least, self.max_megapixels)

    def configured(self, num_channels: int, max_megapixels: float | None) -> "SamplePictures":
        return replace(self, num_channels=num_channels, max_megapixels=max_megapixels)

    def take(self, rows: Int64[np.ndarray, "M"]) -> "SamplePictures":
        return replace(self, rows=self.rows[rows])


def _picture(given: Any, num_channels: int, at_least: int | None, max_megapixels: float | None) -> Picture:
    if isinstance(given, str | Path):
        return decode(given, num_channels=num_channels, at_least=at_least, max_megapixels=max_megapixels)
    if isinstance(given, Image.Image):
        picture = to_picture(given, num_channels)
    else:
        picture = array_picture(_rows_first(given), num_channels)
    return reduce(picture, reduction(picture_hw(picture), at_least))


def _rows_first(given: Any) -> Shaped[np.ndarray, "..."]:
    """An array [H, W] or [H, W, C]; torch has the channels in front."""
    array = _array(given)
    return array.transpose(1, 2, 0) if hasattr(given, "numpy") and array.ndim == 3 else array


def _size_hw(given: Any) -> tuple[int, int]:
    if isinstance(given, str | Path):
        return read_header(given).upright_size_hw
    if isinstance(given, Image.Image):
        return given.height, given.width
    height, width = _rows_first(given).shape[:2]
    return int(height), int(width)


def _array(value: Any) -> Shaped[np.ndarray, "..."]:
    return np.asarray(value.numpy() if hasattr(value, "numpy") else value)


Code = tuple[bytes, tuple[int, int]]
"""Run-length code, and the (height, width) it is for."""


@dataclass
class _Reader:
    samples: Samples
    raw: RawSplit
    masks: bool
    names: list[str] | None
    label_of: dict[str, int] = field(default_factory=dict)

    def take(self, index: int) -> None:
        """Raises:
        ValueError: the sample is not of the form.
        """
        sample = self.samples[index]
        if not isinstance(sample, tuple | list) or len(sample) not in (3, 4):
            raise ValueError(f"expected (image, boxes, labels) or (image, boxes, labels, masks), got {brief(sample)}")
        size_hw = _size_hw(sample[0])
        boxes = _array(sample[1]).astype(np.float64).reshape(-1, 4)
        labels = [self._label(label) for label in _list(sample[2])]
        if len(labels) != len(boxes):
            raise ValueError(f"{len(boxes)} boxes, but {len(labels)} labels")
        codes = self._codes(sample, len(boxes), size_hw)
        image = self.raw.add_image(str(index), index, size_hw)
        sides = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
        has_outline = len(sample) > 3 and sample[3] is not None
        for number, (box, label, code) in enumerate(zip(sides.tolist(), labels, codes, strict=True)):
            self.raw.add_object(image, label, box, number, has_outline=has_outline, code=code)

    def _codes(self, sample: Sequence[Any], count: int, size_hw: tuple[int, int]) -> list[Code | None]:
        if len(sample) < 4 or sample[3] is None:
            return [None] * count
        masks = _array(sample[3])
        if masks.shape != (count, *size_hw):
            raise ValueError(f"masks of shape {masks.shape}; expected {(count, *size_hw)}")
        if not self.masks:
            return [None] * count
        return [(rle["counts"], size_hw) for rle in mask_ops.encode(np.ascontiguousarray(masks != 0))]

    def _label(self, label: Any) -> int:
        if isinstance(label, str):
            if self.names is None:
                return self.label_of.setdefault(label, len(self.label_of))
            if label not in self.names:
                raise ValueError(f"label {label!r} is none of its classes")
            return self.names.index(label)
        number = int(label)
        if number != label or number < 0 or (self.names is not None and number >= len(self.names)):
            allowed = f"0 to {len(self.names) - 1}" if self.names else "whole numbers from 0"
            raise ValueError(f"label {label!r}; allowed: {allowed}")
        return number


def _list(labels: Any) -> list[Any]:
    values: list[Any] = labels.tolist() if hasattr(labels, "tolist") else list(labels)
    return values


def read(files: SplitFiles, masks: bool, problems: Problems) -> RawSplit:
    """What the samples say. One that is not of the form is left out, or refused where that is most of them."""
    samples: Samples = files.parts
    called, names = files.file, getattr(samples, "classes", None)
    raw = RawSplit(
        files,
        outlines=Outlines() if masks else None,
        place=lambda raw, row: f"sample {raw.image_ids[raw.images[row]]} object {raw.object_ids[row]}",
    )
    reader = _Reader(samples, raw, masks, None if names is None else [str(name) for name in names])
    for index in range(len(samples)):
        try:
            reader.take(index)
        except Exception as error:  # a dataset of somebody else's raises what it likes
            problems.warning(called, "samples that cannot be used (left out)", f"{index}: {error}")
    raw.categories = _categories(reader)
    if len(samples) and len(raw) < len(samples) / 2:
        problems.error(called, f"{len(samples) - len(raw)} of {len(samples)} samples cannot be used: see the warnings")
    if not len(raw):
        problems.error(called, "no samples")
    return raw


def _categories(reader: _Reader) -> list[Category]:
    """Named labels in alphabetic order, so that the classes do not depend on that of the samples."""
    raw = reader.raw
    if reader.names is not None:
        names = reader.names
    elif reader.label_of:
        names = sorted(reader.label_of)
        place_of = {reader.label_of[name]: names.index(name) for name in names}
        for row, label in enumerate(raw.labels):
            raw.labels[row] = place_of[label]
    else:
        names = [f"class {index}" for index in range(max(raw.labels, default=-1) + 1)]
    return [Category(index, name) for index, name in enumerate(names)]
