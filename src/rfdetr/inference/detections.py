"""Predictions -> what users work with: supervision's Detections, and JSON."""

from __future__ import annotations

import warnings
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rfdetr.classes import ClassTable
from rfdetr.masks import encode
from rfdetr.models.postprocess import full_size_masks
from rfdetr.types import Predictions

if TYPE_CHECKING:
    from supervision import Detections

BACKGROUND = "__background__"


@cache
def detections_class() -> type[Detections]:
    """supervision's, imported where there is something to show: it takes as long as the other imports of a training."""
    with warnings.catch_warnings():  # it adds filters of its own
        # It warns that its annotators are slower without OpenCV; the fields used here are not.
        warnings.simplefilter("ignore")
        from supervision import Detections
    return Detections


def to_supervision(predictions: Predictions, classes: ClassTable, size_hw: tuple[int, int]) -> Detections:
    """Detections with names, best first; `size_hw` is that of the image, and of the masks if there are any."""
    boxes, scores, labels = (
        values.cpu().numpy() for values in (predictions.boxes, predictions.scores, predictions.labels)
    )
    masks = None if predictions.mask_logits is None else _full_size(predictions.mask_logits, size_hw)
    return named_detections(boxes, labels, classes, scores, masks)


def _full_size(logits: Float[Tensor, "N h w"], size_hw: tuple[int, int]) -> Bool[np.ndarray, "N height width"]:
    masks = np.empty((len(logits), *size_hw), bool)
    start = 0
    for part in full_size_masks(logits, size_hw):
        masks[start : start + len(part)] = part.cpu().numpy()
        start += len(part)
    return masks


def named_detections(
    boxes_xyxy: Float[np.ndarray, "N 4"],
    class_ids: Int[np.ndarray, "N"],
    classes: ClassTable,
    scores: Float[np.ndarray, "N"] | None = None,
    masks: Bool[np.ndarray, "N height width"] | None = None,
) -> Detections:
    """Detections with the class names in `data["class_name"]`; without scores, ground truth.

    Logits that stand for no class (the last one; COCO's unused ids) are never a target: they are background.
    """
    names = classes.name_of
    return detections_class()(
        xyxy=boxes_xyxy.astype(np.float32).reshape(-1, 4),
        mask=masks,
        class_id=class_ids.astype(np.int64),
        confidence=None if scores is None else scores.astype(np.float32),
        data={"class_name": np.array([names.get(int(i), BACKGROUND) for i in class_ids], dtype=np.str_)},
    )


def to_json(image: str, detections: Detections) -> dict[str, Any]:
    """One image's detections as plain values: `box` is xyxy in pixels, `segmentation` run-length code as in COCO."""
    boxes, scores, class_ids = detections.xyxy, detections.confidence, detections.class_id
    if scores is None or class_ids is None:
        raise TypeError("detections of `predict` have scores and class ids; these have not")
    rows = zip(class_ids, detections.data["class_name"], scores, boxes, strict=True)
    found: list[dict[str, Any]] = [
        {
            "class_id": int(class_id),
            "class_name": str(name),
            "score": round(float(score), 6),
            "box": [round(float(side), 2) for side in box],
        }
        for class_id, name, score, box in rows
    ]
    if detections.mask is not None:
        for row, mask in zip(found, detections.mask, strict=True):
            (rle,) = encode(mask[None])
            row["segmentation"] = {**rle, "counts": rle["counts"].decode("ascii")}
    return {"image": image, "detections": found}
