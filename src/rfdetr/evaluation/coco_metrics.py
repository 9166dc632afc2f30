"""AP and AR as COCO defines them, from predictions that may come from several processes.

The numbers are pycocotools', with one exception: an object whose annotation id is 0 can be found like any other.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch.distributed as dist
from hotcoco import COCO, COCOeval
from jaxtyping import Float, Float64

from rfdetr.data.annotations import Annotations
from rfdetr.evaluation.detections import DetectionTable
from rfdetr.evaluation.results import EvaluationResult
from rfdetr.evaluation.threshold_sweep import best_operating_point
from rfdetr.types import Predictions

# COCO's area ranges: all, up to 32^2 pixels, up to 96^2, above.
_ALL, _SMALL, _MEDIUM, _LARGE = range(4)
# COCO's IoU thresholds are 0.50, 0.55, ..., 0.95.
_IOU_50, _IOU_75 = 0, 5


class CocoEvaluator:
    """Collects predictions for the images of a split and scores them.

    Of an image without predictions, all objects count as missed. Left out are predictions of classes that the dataset
    does not have, and those whose box or score is not finite (of a diverged model).

    Args:
        ground_truth: used as in the file: boxes unclipped, areas as given, crowd regions as such.
        max_dets: detections per image and class that count for AP and AR, best first.
    """

    def __init__(self, ground_truth: Annotations, max_dets: int = 500) -> None:
        self.ground_truth = ground_truth
        self.max_dets = max_dets
        self._row_of = {int(image_id): row for row, image_id in enumerate(ground_truth.image_ids)}
        self._seen: set[int] = set()
        self._tables: list[DetectionTable] = []

    def update(self, image_ids: Sequence[int], predictions: Sequence[Predictions]) -> None:
        """Add predictions; an image that comes again keeps its first ones.

        Raises:
            KeyError: no such image in the ground truth.
        """
        new: dict[int, Predictions] = {}
        for image_id, image in zip(image_ids, predictions, strict=True):
            row = self._row_of[image_id]
            if row not in self._seen:
                new.setdefault(row, image)
        self._seen.update(new)
        table = DetectionTable.from_predictions(list(new), list(new.values()))
        is_known = np.isin(table.labels, self.ground_truth.classes.class_ids)
        self._tables.append(table.where(is_known & table.is_finite))

    def compute(self) -> EvaluationResult:
        """All metrics. In a torch.distributed process group every process calls it; it counts the images of all."""
        self._gather()
        truth, detections = self.ground_truth, DetectionTable.concatenate(self._tables)
        precision, recall = _precision_and_recall(truth, detections, self.max_dets)
        best = best_operating_point(truth, detections)
        class_ids = sorted(truth.classes.class_ids)
        return EvaluationResult(
            metrics={
                "mAP_50_95": _mean(precision[..., _ALL]),
                "mAP_50": _mean(precision[_IOU_50, ..., _ALL]),
                "mAP_75": _mean(precision[_IOU_75, ..., _ALL]),
                "mAP_small": _mean(precision[..., _SMALL]),
                "mAP_medium": _mean(precision[..., _MEDIUM]),
                "mAP_large": _mean(precision[..., _LARGE]),
                "mAR": _mean(recall[..., _ALL]),
                "F1": best.f1,
                "precision": best.precision,
                "recall": best.recall,
                "F1_threshold": best.threshold,
            },
            per_class={
                name: _mean(precision[:, :, class_ids.index(class_id), _ALL])
                for class_id, name in truth.classes.name_of.items()
            },
            num_images=len(truth),
            num_objects=int((~truth.is_crowd).sum()),
        )

    def coco_results(self) -> list[dict[str, Any]]:
        """The predictions in COCO's results format, with the ids that the annotation file gives images and categories.

        After `compute` in a process group, those of all processes. Predictions of classes that the file does not know
        are left out.
        """
        detections = DetectionTable.concatenate(self._tables)
        category_id_of = self.ground_truth.category_id_of
        rows = zip(
            self.ground_truth.image_ids[detections.images].tolist(),
            detections.labels.tolist(),
            detections.boxes_xywh.tolist(),
            detections.scores.tolist(),
            strict=True,
        )
        return [
            {"image_id": image_id, "category_id": category_id_of[label], "bbox": box, "score": score}
            for image_id, label, box, score in rows
            if label in category_id_of
        ]

    def _gather(self) -> None:
        """Take over what the other processes have seen, image by image from the first that has it."""
        if not (dist.is_available() and dist.is_initialized()):
            return
        parts: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(parts, (self._seen, DetectionTable.concatenate(self._tables)))
        self._seen, self._tables = set(), []
        for seen, table in parts:
            self._tables.append(table.where(~np.isin(table.images, list(self._seen))))
            self._seen |= seen


def _precision_and_recall(
    truth: Annotations, detections: DetectionTable, max_dets: int
) -> tuple[Float64[np.ndarray, "iou recall classes area"], Float64[np.ndarray, "iou classes area"]]:
    """Precision at 101 recalls, and the highest recall; -1 for classes without objects of that area.

    Classes are in the order of their ids.
    """
    dataset = COCO.from_arrays(
        images=[{"id": int(image_id)} for image_id in truth.image_ids],
        categories=[{"id": class_id, "name": name} for class_id, name in truth.classes.name_of.items()],
        image_ids=np.repeat(truth.image_ids, np.diff(truth.offsets)),
        category_ids=truth.labels,
        boxes=truth.boxes_xywh,
        area=truth.areas,
        iscrowd=truth.is_crowd,
    )
    columns = (truth.image_ids[detections.images], detections.boxes_xywh, detections.scores, detections.labels)
    evaluation = COCOeval(dataset, dataset.load_res(np.column_stack(columns)), "bbox")
    evaluation.params.max_dets = [max_dets]
    evaluation.evaluate()
    evaluation.accumulate()
    arrays: Any = evaluation.eval
    return arrays["precision"][..., 0], arrays["recall"][..., 0]


def _mean(values: Float[np.ndarray, "..."]) -> float | None:
    """Mean of the defined values."""
    defined = values[values > -1]
    return float(defined.mean()) if defined.size else None
