"""The ground truth of one split, in a few arrays: loader processes share them without copying."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from rfdetr.classes import ClassTable
from rfdetr.data.segmentations import Segmentations, taken
from rfdetr.data.sources import Pictures
from rfdetr.masks import Segmentation


@dataclass(frozen=True, eq=False)
class Objects:
    """What a detector shall find in an image. The rows of all fields are the objects."""

    boxes: Float32[np.ndarray, "T 4"]  # xyxy in pixels, clipped to the image
    labels: Int64[np.ndarray, "T"]  # class ids
    segmentations: list[Segmentation] | None  # None where they were not read


@dataclass(frozen=True, eq=False)
class Annotations:
    """Images in the order of the file; the objects of image i are the rows `offsets[i]:offsets[i + 1]`."""

    split: str
    annotation_file: Path
    """What messages name: the file, or the folder of many small ones."""
    pictures: Pictures
    classes: ClassTable
    image_ids: Int64[np.ndarray, "N"]
    sizes_hw: Int64[np.ndarray, "N 2"]
    offsets: Int64[np.ndarray, "N+1"]
    boxes_xywh: Float64[np.ndarray, "M 4"]  # in pixels, as in the file: neither clipped nor filtered
    areas: Float64[np.ndarray, "M"]
    labels: Int64[np.ndarray, "M"]  # class ids
    is_crowd: Bool[np.ndarray, "M"]
    category_id_of: Mapping[int, int]
    """Class id -> category id of this file, which may differ from that of the training split."""
    segmentations: Segmentations | None = None
    """None where they were not read."""
    shards: Int64[np.ndarray, "N"] | None = None
    """Which shard each picture lies in. None: each is a file of its own."""

    def __len__(self) -> int:
        """Number of images."""
        return len(self.image_ids)

    def renamed(self, names: Sequence[str]) -> "Annotations":
        """The same with other names for its classes, in their order.

        Raises:
            ConfigError: they do not fit.
        """
        return replace(self, classes=self.classes.renamed(names))

    def with_classes(self, classes: ClassTable) -> "Annotations":
        """The same objects with the class ids of another table, which must have all names of this one."""
        class_id_of = dict(zip(classes.names, classes.class_ids, strict=True))
        new = {old: class_id_of[name] for old, name in self.classes.name_of.items()}
        labels = np.array([new[old] for old in range(len(new))], dtype=np.int64)[self.labels]
        category_id_of = {new[old]: category_id for old, category_id in self.category_id_of.items()}
        return replace(self, classes=classes, labels=labels, category_id_of=category_id_of)

    def subset(self, images: Int64[np.ndarray, "K"], split: str | None = None) -> "Annotations":
        """Some of the images, in the given order."""
        offsets, rows = taken(self.offsets, images)
        return replace(
            self,
            split=split or self.split,
            pictures=self.pictures.take(images),
            image_ids=self.image_ids[images],
            sizes_hw=self.sizes_hw[images],
            offsets=offsets,
            boxes_xywh=self.boxes_xywh[rows],
            areas=self.areas[rows],
            labels=self.labels[rows],
            is_crowd=self.is_crowd[rows],
            shards=None if self.shards is None else self.shards[images],
            segmentations=None if self.segmentations is None else self.segmentations.take(rows),
        )

    def size_hw(self, index: int) -> tuple[int, int]:
        height, width = self.sizes_hw[index]
        return int(height), int(width)

    def training_objects(self, index: int) -> Objects:
        """What there is to find in image `index`: no crowd regions, and no boxes without area inside the image."""
        start = int(self.offsets[index])
        rows = slice(start, int(self.offsets[index + 1]))
        boxes, has_area = boxes_inside(self.boxes_xywh[rows], self.sizes_hw[index : index + 1])
        kept = has_area & ~self.is_crowd[rows]
        labels = self.labels[rows][kept]
        if self.segmentations is None:
            return Objects(boxes[kept], labels, None)
        return Objects(boxes[kept], labels, [self.segmentations[start + row] for row in np.flatnonzero(kept).tolist()])


def boxes_inside(
    boxes_xywh: Float64[np.ndarray, "M 4"], sizes_hw: Int64[np.ndarray, "#M 2"]
) -> tuple[Float32[np.ndarray, "M 4"], Bool[np.ndarray, "M"]]:
    """Corners of boxes, clipped to images of these sizes, and whether they have an area there.

    In the precision that is trained in: of a narrow box it may leave nothing.
    """
    corners = np.concatenate([boxes_xywh[:, :2], boxes_xywh[:, :2] + boxes_xywh[:, 2:]], axis=1).astype(np.float32)
    boxes = corners.clip(0, np.tile(sizes_hw[:, ::-1], 2).astype(np.float32))
    return boxes, (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) > 0
