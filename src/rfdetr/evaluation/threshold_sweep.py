"""The confidence threshold with the best F1 score."""

from dataclasses import dataclass

import numpy as np

from rfdetr.data.annotations import Annotations
from rfdetr.evaluation.detections import DetectionTable
from rfdetr.evaluation.matching import match

THRESHOLDS = np.arange(101) / 100


@dataclass(frozen=True)
class OperatingPoint:
    """Means over the classes that have objects; all None where no class has any."""

    f1: float | None
    precision: float | None  # a class without detections counts as 0
    recall: float | None
    threshold: float | None  # None also if no detection is correct at any threshold


def best_operating_point(truth: Annotations, detections: DetectionTable) -> OperatingPoint:
    """The best mean F1 over 101 thresholds, the lowest of equals. As in prediction, scores above the threshold count.

    A detection is correct if it is matched at IoU 0.5. Crowd regions and what is found on them do not count.
    """
    objects = np.bincount(truth.labels[~truth.is_crowd])
    if not len(objects):
        return OperatingPoint(None, None, None, None)
    is_correct, is_ignored = match(truth, detections)
    correct = _count_above(detections.where(is_correct), len(objects))
    kept = _count_above(detections.where(~is_ignored), len(objects))
    correct, kept, objects = correct[objects > 0], kept[objects > 0], objects[objects > 0, None]

    f1 = (2 * correct / (kept + objects)).mean(axis=0)
    precision = (correct / np.maximum(kept, 1)).mean(axis=0)
    recall = (correct / objects).mean(axis=0)
    best = int(f1.argmax())
    threshold = float(THRESHOLDS[best]) if f1[best] else None
    return OperatingPoint(float(f1[best]), float(precision[best]), float(recall[best]), threshold)


def _count_above(detections: DetectionTable, num_labels: int) -> np.ndarray:
    """Number of detections per class id (below `num_labels`) and threshold."""
    # The thresholds that a score is above; in the scores' number format, as prediction compares them.
    below = np.searchsorted(THRESHOLDS.astype(np.float32), detections.scores, side="left")
    known = detections.labels < num_labels
    cells = detections.labels[known] * (len(THRESHOLDS) + 1) + below[known]
    counts = np.bincount(cells, minlength=num_labels * (len(THRESHOLDS) + 1)).reshape(num_labels, -1)
    return counts[:, :0:-1].cumsum(axis=1)[:, ::-1]
