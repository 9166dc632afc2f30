"""A picture with its objects, before and after the geometry of augmentation."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Int64, Shaped

from rfdetr.data.annotations import Objects
from rfdetr.data.channels import Pixels
from rfdetr.data.resampling import Picture


@dataclass(frozen=True, eq=False)
class Source:
    """A picture as it was loaded. Its objects are in pixels of `size_hw`, of which it may be a smaller version."""

    picture: Picture
    objects: Objects
    size_hw: tuple[int, int]


@dataclass(frozen=True, eq=False)
class Scene:
    """What the detector is shown, or a part of it. The rows of all fields but the first are the objects."""

    pixels: Pixels
    boxes: Float32[np.ndarray, "T 4"]  # cxcywh in [0, 1]
    labels: Int64[np.ndarray, "T"]
    masks: Bool[np.ndarray, "T height width"] | None  # None where outlines were not read

    @property
    def size_hw(self) -> tuple[int, int]:
        height, width = self.pixels.shape[:2]
        return height, width

    def of(self, kept: Shaped[np.ndarray, "T"]) -> "Scene":
        """The same picture with some of its objects (a choice of them, or their numbers)."""
        masks = None if self.masks is None else self.masks[kept]
        return Scene(self.pixels, self.boxes[kept], self.labels[kept], masks)


def bounds(mask: Bool[np.ndarray, "height width"]) -> Float32[np.ndarray, "4"]:
    """Cxcywh in [0, 1] around a mask that is not empty."""
    height, width = mask.shape
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    x1, x2 = columns[0] / width, (columns[-1] + 1) / width
    y1, y2 = rows[0] / height, (rows[-1] + 1) / height
    return np.array([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1], dtype=np.float32)


def joined(pixels: Pixels, scenes: list[Scene]) -> Scene:
    """One picture with the objects of several scenes of its size, in their order."""
    masks = [scene.masks for scene in scenes if scene.masks is not None]
    return Scene(
        pixels,
        np.concatenate([scene.boxes for scene in scenes]),
        np.concatenate([scene.labels for scene in scenes]),
        np.concatenate(masks) if len(masks) == len(scenes) else None,
    )
