"""The confidence threshold with the best F1 score."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64, Shaped

THRESHOLDS = np.arange(101) / 100
_AT_ONCE = 100_000  # detections: bounds the memory


@dataclass(frozen=True)
class OperatingPoint:
    """Means over the classes that have objects; all None where no class has any."""

    f1: float | None
    precision: float | None  # a class without detections counts as 0
    recall: float | None
    threshold: float | None  # None also if no detection is correct at any threshold


def best_operating_point(labels: Int64[np.ndarray, "M"], judged: Shaped[np.ndarray, "D"]) -> OperatingPoint:
    """The best mean F1 over 101 thresholds, the lowest of equals. As in prediction, scores above the threshold count.

    `labels` are the class ids of the objects, without crowd regions, `judged` rows of JUDGED.
    """
    objects = np.bincount(labels)
    if not len(objects):
        return OperatingPoint(None, None, None, None)
    kept = _count_above(judged, len(objects))
    correct = _count_above(judged[judged["is_correct"]], len(objects))
    correct, kept, objects = correct[objects > 0], kept[objects > 0], objects[objects > 0, None]

    f1 = (2 * correct / (kept + objects)).mean(axis=0)
    precision = (correct / np.maximum(kept, 1)).mean(axis=0)
    recall = (correct / objects).mean(axis=0)
    best = int(f1.argmax())
    threshold = float(THRESHOLDS[best]) if f1[best] else None
    return OperatingPoint(float(f1[best]), float(precision[best]), float(recall[best]), threshold)


def _count_above(judged: Shaped[np.ndarray, "D"], num_labels: int) -> Int64[np.ndarray, "classes thresholds"]:
    """Number of detections per class id (below `num_labels`) and threshold."""
    counts = np.zeros(num_labels * (len(THRESHOLDS) + 1), np.int64)
    for start in range(0, len(judged), _AT_ONCE):
        part = judged[start : start + _AT_ONCE]
        part = part[part["label"] < num_labels]
        # The thresholds that a score is above; in the scores' number format, as prediction compares them.
        below = np.searchsorted(THRESHOLDS.astype(np.float32), part["score"], side="left")
        counts += np.bincount(part["label"] * (len(THRESHOLDS) + 1) + below, minlength=len(counts))
    return counts.reshape(num_labels, -1)[:, :0:-1].cumsum(axis=1)[:, ::-1]
