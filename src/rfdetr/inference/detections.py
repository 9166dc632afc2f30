"""Predictions -> what users work with: supervision's Detections, and JSON."""

import warnings
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from rfdetr.classes import ClassTable
from rfdetr.types import Predictions

with warnings.catch_warnings():
    # Its annotators are slower without OpenCV; the fields used here are not.
    warnings.filterwarnings("ignore", message="OpenCV .* is not installed", category=UserWarning)
    from supervision import Detections

__all__ = ["BACKGROUND", "Detections", "named_detections", "to_json", "to_supervision"]

BACKGROUND = "__background__"


def to_supervision(predictions: Predictions, classes: ClassTable, threshold: float) -> Detections:
    """The predictions scored above `threshold`, best first."""
    keep = predictions.scores > threshold
    boxes, scores, labels = (
        values[keep].cpu().numpy() for values in (predictions.boxes, predictions.scores, predictions.labels)
    )
    return named_detections(boxes, labels, classes, scores)


def named_detections(
    boxes_xyxy: Float[np.ndarray, "N 4"],
    class_ids: Int[np.ndarray, "N"],
    classes: ClassTable,
    scores: Float[np.ndarray, "N"] | None = None,
) -> Detections:
    """Detections with the class names in `data["class_name"]`; without scores, ground truth.

    Logits that stand for no class (the last one; COCO's unused ids) are never a target: they are background.
    """
    names = classes.name_of
    return Detections(
        xyxy=boxes_xyxy.astype(np.float32).reshape(-1, 4),
        class_id=class_ids.astype(np.int64),
        confidence=None if scores is None else scores.astype(np.float32),
        data={"class_name": np.array([names.get(int(i), BACKGROUND) for i in class_ids], dtype=np.str_)},
    )


def to_json(image: str, detections: Detections) -> dict[str, Any]:
    """One image's detections as plain values; `box` is xyxy in pixels."""
    boxes, scores, class_ids = detections.xyxy, detections.confidence, detections.class_id
    if scores is None or class_ids is None:
        raise TypeError("detections of `predict` have scores and class ids; these have not")
    rows = zip(class_ids, detections.data["class_name"], scores, boxes, strict=True)
    return {
        "image": image,
        "detections": [
            {
                "class_id": int(class_id),
                "class_name": str(name),
                "score": round(float(score), 6),
                "box": [round(float(side), 2) for side in box],
            }
            for class_id, name, score, box in rows
        ],
    }
