"""Matching of detections and objects as COCO defines it, image by image as they come, and the numbers that follow."""

import zlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal

import numpy as np
from hotcoco import Params, StreamingEval
from jaxtyping import Float, Float64, Int64

from rfdetr.data.annotations import Annotations
from rfdetr.distributed import gathered
from rfdetr.evaluation.block import Block
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
        self.max_dets = max_dets
        self._states = Block()
        # Ids may be negative, or larger than a float can tell apart. Their order decides between equal scores.
        self._ids: Int64[np.ndarray, "N"] = np.argsort(np.argsort(truth.image_ids, kind="stable")) + 1

    def add_boxes(self, rows: Collection[int], detections: DetectionTable) -> None:
        """Match the detections of some images, all of them at once."""
        image_ids = self._ids[detections.images]
        columns = (image_ids, detections.boxes_xywh, detections.scores, detections.labels)
        self._keep(self._matched(rows, np.column_stack(columns)))

    def add_masks(self, row: int, detections: DetectionTable, masks: Iterable[Rle]) -> None:
        """Match the detections of one image. A detection is as large as its mask, whatever its box."""
        image_id = int(self._ids[row])
        columns = zip(detections.labels.tolist(), detections.scores.tolist(), masks, strict=True)
        found = [
            {"image_id": image_id, "category_id": label, "score": score, "segmentation": mask}
            for label, score, mask in columns
        ]
        self._keep(self._matched([row], found))

    def _matched(self, rows: Collection[int], found: Float64[np.ndarray, "D 7"] | list[Any]) -> StreamingEval:
        params = Params(self.kind)
        params.max_dets = [self.max_dets]
        categories = [{"id": class_id, "name": name} for class_id, name in self.truth.classes.name_of.items()]
        stream = StreamingEval(categories, self.kind, params=params)
        images = [{"id": int(self._ids[row])} for row in rows]
        stream.update(images, [thing for row in rows for thing in self._objects(row)], found)
        return stream

    def _keep(self, matched: StreamingEval) -> None:
        self._states.append(zlib.compress(matched.to_bytes(), level=1))

    def _objects(self, row: int) -> list[dict[str, Any]]:
        truth = self.truth
        objects: list[dict[str, Any]] = []
        for index in range(truth.offsets[row], truth.offsets[row + 1]):
            thing = {
                "id": index + 1,
                "image_id": int(self._ids[row]),
                "category_id": int(truth.labels[index]),
                "bbox": truth.boxes_xywh[index].tolist(),
                "area": float(truth.areas[index]),
                "iscrowd": int(truth.is_crowd[index]),
            }
            if self.kind == "segm" and truth.segmentations is not None:
                thing["segmentation"] = to_rle(truth.segmentations[index], truth.size_hw(row))
            objects.append(thing)
        return objects

    def gather(self) -> None:
        """Take over what all processes have matched; an image that several have, from the first."""
        # The later of two results replaces the earlier.
        everything = chain.from_iterable(reversed(gathered(self._states)))
        merged = StreamingEval.merge(chain([self._matched([], [])], map(_restored, everything)))
        self._states = Block()
        self._keep(merged)

    def curves(self, missed: Collection[int]) -> Curves:
        """Of all images so far, and of further ones where nothing was found."""
        everything = StreamingEval.merge(chain([self._matched(missed, [])], map(_restored, self._states)))
        evaluation = everything.finalize()
        evaluation.accumulate()
        arrays: Any = evaluation.eval
        return Curves(arrays["precision"][..., 0], arrays["recall"][..., 0])


def _restored(state: bytes) -> StreamingEval:
    return StreamingEval.from_bytes(zlib.decompress(state))
