"""Which detections are correct: greedy matching with the ground truth, over many images at once."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64, Shaped

from rfdetr.data.annotations import Annotations
from rfdetr.data.segmentations import taken
from rfdetr.evaluation.detections import DetectionTable

MIN_IOU = 0.5
_PAIRS_AT_ONCE = 200_000  # bounds the memory of the pairwise IoUs to about 50 MB


# A detection that is right or wrong: row of its image in the ground truth, class id, score.
JUDGED = np.dtype([("image", np.int32), ("label", np.int32), ("score", np.float32), ("is_correct", np.bool_)])


def judge(truth: Annotations, detections: DetectionTable) -> Shaped[np.ndarray, "D"]:
    """Rows of JUDGED, by boxes at IoU 0.5; detections that lie on a crowd region are neither right nor wrong."""
    is_correct, is_ignored = match(truth, detections)
    judged = np.empty(len(detections), JUDGED)
    judged["image"], judged["label"] = detections.images, detections.labels
    judged["score"], judged["is_correct"] = detections.scores, is_correct
    kept: np.ndarray = judged[~is_ignored]
    return kept


@dataclass(frozen=True, eq=False)
class Overlaps:
    """Pairs of a detection and an object of the same image and class that overlap enough to match."""

    detections: Int64[np.ndarray, "N"]
    objects: Int64[np.ndarray, "N"]  # rows of Annotations.labels
    ious: Float64[np.ndarray, "N"]


def match(truth: Annotations, detections: DetectionTable) -> tuple[Bool[np.ndarray, "D"], Bool[np.ndarray, "D"]]:
    """Which detections found an object, and which others lie on a crowd region and are neither right nor wrong.

    As in COCO's evaluation at IoU 0.5: best score first, each detection takes the free object of its class that it
    overlaps most.
    """
    pairs = overlaps(truth, detections)
    is_crowd = truth.is_crowd[pairs.objects]
    is_correct = np.zeros(len(detections), dtype=bool)
    objects = Overlaps(pairs.detections[~is_crowd], pairs.objects[~is_crowd], pairs.ious[~is_crowd])
    is_correct[_take_turns(objects, detections.scores)] = True
    is_ignored = np.zeros(len(detections), dtype=bool)
    is_ignored[pairs.detections[is_crowd]] = True
    return is_correct, is_ignored & ~is_correct


def overlaps(truth: Annotations, detections: DetectionTable) -> Overlaps:
    num_labels = 1 + max(truth.labels.max(initial=0), detections.labels.max(initial=0))
    images = np.unique(detections.images)
    offsets, present = taken(truth.offsets, images)
    keys = np.repeat(images, np.diff(offsets)) * num_labels + truth.labels[present]
    order = np.argsort(keys, kind="stable")
    wanted = detections.images * num_labels + detections.labels
    first = np.searchsorted(keys[order], wanted, side="left")
    counts = np.searchsorted(keys[order], wanted, side="right") - first

    boxes, parts = detections.boxes_xywh, []
    for rows in np.split(np.arange(len(detections)), _chunk_ends(counts)):
        pairs = np.repeat(rows, counts[rows])
        within = np.arange(len(pairs)) - np.repeat(np.cumsum(counts[rows]) - counts[rows], counts[rows])
        objects = present[order[first[pairs] + within]]
        ious = _iou(boxes[pairs], truth.boxes_xywh[objects], truth.is_crowd[objects])
        close = ious >= MIN_IOU
        parts.append((pairs[close], objects[close], ious[close]))
    return Overlaps(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _chunk_ends(counts: Int64[np.ndarray, "D"]) -> Int64[np.ndarray, "N"]:
    """Where to cut detections so that each piece has about `_PAIRS_AT_ONCE` pairs."""
    total = np.cumsum(counts)
    return np.searchsorted(total, np.arange(_PAIRS_AT_ONCE, total.max(initial=0), _PAIRS_AT_ONCE))


def _iou(
    boxes: Float64[np.ndarray, "N 4"], objects: Float64[np.ndarray, "N 4"], is_crowd: Bool[np.ndarray, "N"]
) -> Float64[np.ndarray, "N"]:
    """IoU of xywh boxes, pair by pair; of a crowd region, the part of the detection inside it."""
    sides = np.minimum(boxes[:, :2] + boxes[:, 2:], objects[:, :2] + objects[:, 2:])
    sides -= np.maximum(boxes[:, :2], objects[:, :2])
    inter = sides.clip(min=0).prod(axis=1)
    area = boxes[:, 2] * boxes[:, 3]
    whole = np.where(is_crowd, area, area + objects[:, 2] * objects[:, 3] - inter)
    ious: np.ndarray = inter / np.where(whole > 0, whole, 1)
    return ious


def _take_turns(pairs: Overlaps, scores: Float[np.ndarray, "D"]) -> Int64[np.ndarray, "N"]:
    """The detections that get an object.

    Deferred acceptance: every detection asks for its best object, an object keeps the best detection, who was refused
    asks for the next best. As all objects prefer by score, it ends where taking turns by score ends, in few rounds.
    """
    turn = np.empty(len(scores), dtype=np.int64)
    turn[np.argsort(-scores, kind="stable")] = np.arange(len(scores))
    order = np.lexsort((-pairs.objects, -pairs.ious, turn[pairs.detections]))  # of equal IoUs COCO takes the last
    asking = pairs.detections[order]
    wanted, objects = np.unique(pairs.objects[order], return_inverse=True)
    is_last = np.append(asking[1:] != asking[:-1], True)[: len(asking)]
    current = np.flatnonzero(np.roll(is_last, 1))  # the pair each detection asks for now
    while True:
        best = np.full(len(wanted), len(scores))
        np.minimum.at(best, objects[current], turn[asking[current]])
        is_refused = best[objects[current]] != turn[asking[current]]
        if not is_refused.any():
            return asking[current]
        gives_up = is_refused & is_last[current]
        current = (current + is_refused)[~gives_up]
