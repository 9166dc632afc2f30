"""Matching of detections and objects as COCO defines it, image by image as they come, and the numbers that follow."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from hotcoco import Params, StreamingEval
from jaxtyping import Float, Float64, Int64

from rfdetr.data.annotations import Annotations
from rfdetr.data.segmentations import taken
from rfdetr.distributed import gathered
from rfdetr.evaluation.detections import DetectionTable
from rfdetr.masks import Rle, to_rle

# COCO's area ranges: all, up to 32^2 pixels, up to 96^2, above.
_ALL, _SMALL, _MEDIUM, _LARGE = range(4)
# COCO's IoU thresholds are 0.50, 0.55, ..., 0.95.
_IOU_50, _IOU_75 = 0, 5


@dataclass(frozen=True, eq=False)
class Curves:
    """-1 is undefined: no object of the class has an area in the range. Classes are in the order of their ids."""

    precision: Float64[np.ndarray, "iou recall classes area"]  # at 101 recalls
    recall: Float64[np.ndarray, "iou classes area"]  # the highest

    def metrics(self) -> dict[str, float | None]:
        return {
            "mAP_50_95": _mean(self.precision[..., _ALL]),
            "mAP_50": _mean(self.precision[_IOU_50, ..., _ALL]),
            "mAP_75": _mean(self.precision[_IOU_75, ..., _ALL]),
            "mAP_small": _mean(self.precision[..., _SMALL]),
            "mAP_medium": _mean(self.precision[..., _MEDIUM]),
            "mAP_large": _mean(self.precision[..., _LARGE]),
            "mAR": _mean(self.recall[..., _ALL]),
        }

    def per_class(self, truth: Annotations) -> dict[str, float | None]:
        """AP by class name."""
        class_ids = sorted(truth.classes.class_ids)
        return {
            name: _mean(self.precision[:, :, class_ids.index(class_id), _ALL])
            for class_id, name in truth.classes.name_of.items()
        }


def _mean(values: Float[np.ndarray, "..."]) -> float | None:
    """Mean of the defined values."""
    defined = values[values > -1]
    return float(defined.mean()) if defined.size else None


class CocoMatching:
    """By boxes ("bbox") or by masks ("segm"). It keeps scores and matches: a few KB for each image, whatever its masks.

    Args:
        kind: of the two.
        truth: used as in the file: boxes unclipped, areas as given, crowd regions as such.
        max_dets: detections per image and class that count, best first.
    """

    def __init__(self, kind: Literal["bbox", "segm"], truth: Annotations, max_dets: int) -> None:
        self.kind = kind
        self.truth = truth
        params = Params(kind)
        params.max_dets = [max_dets]
        categories = [{"id": class_id, "name": name} for class_id, name in truth.classes.name_of.items()]
        self._stream = StreamingEval(categories, kind, params=params)
        # Ids may be negative, or larger than a float can tell apart. Their order decides between equal scores.
        self._ids: Int64[np.ndarray, "N"] = np.argsort(np.argsort(truth.image_ids, kind="stable")) + 1

    def add_boxes(self, rows: Sequence[int], detections: DetectionTable) -> None:
        """Match the detections of some images, all of them at once."""
        image_ids = self._ids[detections.images]
        columns = (image_ids, detections.boxes_xywh, detections.scores, detections.labels)
        self._match(rows, np.column_stack(columns))

    def add_masks(self, row: int, detections: DetectionTable, masks: Iterable[Rle]) -> None:
        """Match the detections of one image. A detection is as large as its mask, whatever its box."""
        image_id = int(self._ids[row])
        columns = zip(detections.labels.tolist(), detections.scores.tolist(), masks, strict=True)
        found = [
            {"image_id": image_id, "category_id": label, "score": score, "segmentation": mask}
            for label, score, mask in columns
        ]
        self._match([row], found)

    def _match(self, rows: Sequence[int], found: Float64[np.ndarray, "D 7"] | list[Any]) -> None:
        images = [{"id": image_id} for image_id in self._ids[list(rows)].tolist()]
        self._stream.update(images, self._objects(rows), found)

    def _objects(self, rows: Sequence[int]) -> list[dict[str, Any]]:
        truth = self.truth
        images = np.asarray(rows, np.int64)
        offsets, indices = taken(truth.offsets, images)
        columns = {
            "id": indices + 1,
            "image_id": self._ids[images].repeat(np.diff(offsets)),
            "category_id": truth.labels[indices],
            "bbox": truth.boxes_xywh[indices],
            "area": truth.areas[indices],
            "iscrowd": truth.is_crowd[indices].astype(np.int64),
        }
        values = zip(*(column.tolist() for column in columns.values()), strict=True)
        objects = [dict(zip(columns, of_object, strict=True)) for of_object in values]
        if self.kind == "segm" and truth.segmentations is not None:
            sizes_hw = truth.sizes_hw[images].repeat(np.diff(offsets), axis=0).tolist()
            for thing, index, (height, width) in zip(objects, indices.tolist(), sizes_hw, strict=True):
                thing["segmentation"] = to_rle(truth.segmentations[index], (height, width))
        return objects

    def gather(self) -> None:
        """Take over what all processes have matched; an image that several have, from the first."""
        # The later of two results replaces the earlier.
        states = reversed(gathered(self._stream.to_bytes()))
        self._stream = StreamingEval.merge(map(StreamingEval.from_bytes, states))

    def curves(self, missed: Sequence[int]) -> Curves:
        """Of all images so far, and of further ones where nothing was found. Nothing can be added afterwards."""
        self._match(missed, np.empty((0, 7)))
        evaluation = self._stream.finalize()
        evaluation.accumulate()
        arrays: Any = evaluation.eval
        return Curves(arrays["precision"][..., 0], arrays["recall"][..., 0])
