"""Detections of many images in a few flat arrays."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float32, Float64, Int64

from rfdetr.types import Predictions


@dataclass(frozen=True, eq=False)
class DetectionTable:
    images: Int64[np.ndarray, "D"]  # row of the image in the ground truth
    boxes_xyxy: Float32[np.ndarray, "D 4"]  # in pixels
    scores: Float32[np.ndarray, "D"]
    labels: Int64[np.ndarray, "D"]  # class ids

    @classmethod
    def from_predictions(cls, images: Sequence[int], predictions: Sequence[Predictions]) -> "DetectionTable":
        """`images[i]` is the row of the image that `predictions[i]` belongs to."""
        if not predictions:
            return cls.joined([])
        counts = [len(image.scores) for image in predictions]
        # One copy from the device per field instead of one per image.
        return cls(
            np.repeat(np.asarray(images, np.int64), counts),
            torch.cat([image.boxes for image in predictions]).float().cpu().numpy(),
            torch.cat([image.scores for image in predictions]).float().cpu().numpy(),
            torch.cat([image.labels for image in predictions]).long().cpu().numpy(),
        )

    @classmethod
    def joined(cls, tables: Sequence["DetectionTable"]) -> "DetectionTable":
        """One behind the other."""
        none = cls(np.empty(0, np.int64), np.empty((0, 4), np.float32), np.empty(0, np.float32), np.empty(0, np.int64))
        parts = [none, *tables]
        return cls(
            np.concatenate([part.images for part in parts]),
            np.concatenate([part.boxes_xyxy for part in parts]),
            np.concatenate([part.scores for part in parts]),
            np.concatenate([part.labels for part in parts]),
        )

    def __len__(self) -> int:
        return len(self.scores)

    def where(self, kept: Bool[np.ndarray, "D"]) -> "DetectionTable":
        return DetectionTable(self.images[kept], self.boxes_xyxy[kept], self.scores[kept], self.labels[kept])

    @property
    def boxes_xywh(self) -> Float64[np.ndarray, "D 4"]:
        boxes = self.boxes_xyxy.astype(np.float64)
        return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)

    @property
    def is_finite(self) -> Bool[np.ndarray, "D"]:
        is_finite: np.ndarray = np.isfinite(np.column_stack([self.boxes_xyxy, self.scores])).all(axis=1)
        return is_finite
