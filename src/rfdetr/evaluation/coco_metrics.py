"""All metrics of a split, from predictions that may come from several processes.

AP and AR are pycocotools' numbers, with one exception: an object whose annotation id is 0 can be found like any other.
"""

from collections.abc import Collection, Sequence

import numpy as np
import torch
from jaxtyping import Bool

from rfdetr.data.annotations import Annotations
from rfdetr.distributed import gathered, rank_and_world_size
from rfdetr.evaluation.coco_matching import CocoMatching
from rfdetr.evaluation.detections import DetectionTable
from rfdetr.evaluation.mask_codes import full_size_codes
from rfdetr.evaluation.matching import JUDGED, judge
from rfdetr.evaluation.results import EvaluationResult
from rfdetr.evaluation.results_file import ResultsFile
from rfdetr.evaluation.threshold_sweep import best_operating_point
from rfdetr.masks import Rle
from rfdetr.types import Predictions

# Boxes and images that wait until they are matched together, for one call costs as much as hundreds of them.
_AT_ONCE = 10_000


class CocoEvaluator:
    """Scores predictions for the images of a split; masks too, where the ground truth has them.

    Predictions are matched with the ground truth as they come, boxes some ten thousand at a time. Of each only its
    score and its matches are kept: about 10 KB for an image of 300.

    Of an image without predictions, all objects count as missed. Left out are predictions of classes that the dataset
    does not have, and those whose box or score is not finite (of a diverged model).

    Args:
        ground_truth: used as in the file: boxes unclipped, areas as given, crowd regions as such.
        max_dets: detections per image and class that count for AP and AR, best first.
        results: takes all that is scored.
    """

    def __init__(self, ground_truth: Annotations, max_dets: int = 500, results: ResultsFile | None = None) -> None:
        self.ground_truth = ground_truth
        self.results = results
        self._row_of = {int(image_id): row for row, image_id in enumerate(ground_truth.image_ids)}
        self._is_seen = np.zeros(len(ground_truth), np.bool_)
        self._is_left_out = np.zeros(len(ground_truth), np.bool_)
        self._not_finite = 0
        self._waiting: list[DetectionTable] = []
        self._waiting_rows: list[int] = []
        self._num_waiting = 0
        self._judged = bytearray()  # rows of JUDGED
        self._result: EvaluationResult | None = None
        self._boxes = CocoMatching("bbox", ground_truth, max_dets)
        self._masks = None if ground_truth.segmentations is None else CocoMatching("segm", ground_truth, max_dets)

    def update(self, image_ids: Sequence[int], predictions: Sequence[Predictions]) -> None:
        """Add predictions; an image that comes again keeps its first ones.

        Raises:
            KeyError: no such image in the ground truth.
            ValueError: the ground truth has masks, the predictions have none.
            RuntimeError: the metrics have been computed.
        """
        if self._result is not None:
            raise RuntimeError("predictions come too late: the metrics have been computed")
        new: dict[int, Predictions] = {}
        for image_id, image in zip(image_ids, predictions, strict=True):
            row = self._row_of[image_id]
            if not self._is_seen[row]:
                new.setdefault(row, image)
        self._is_seen[list(new)] = True
        table = DetectionTable.from_predictions(list(new), list(new.values()))
        self._not_finite += int((~table.is_finite).sum())
        is_scored = np.isin(table.labels, self.ground_truth.classes.class_ids) & table.is_finite
        detections = table.where(is_scored)
        self._waiting.append(detections)
        self._waiting_rows += new
        self._num_waiting += len(detections) + len(new)
        if self._num_waiting >= _AT_ONCE:
            self._match_waiting()
        if self._masks is None and self.results is None:
            return
        for row, image in new.items():
            own, masks = detections.where(detections.images == row), None
            if self._masks is not None:
                masks = self._full_size(row, image, is_scored[table.images == row])
                self._masks.add_masks(row, own, masks)
            if self.results is not None:
                self.results.add(own, masks)

    def _match_waiting(self) -> None:
        detections = DetectionTable.joined(self._waiting)
        self._judged += judge(self.ground_truth, detections).tobytes()
        self._boxes.add_boxes(self._waiting_rows, detections)
        self._waiting, self._waiting_rows, self._num_waiting = [], [], 0

    def leave_out(self, rows: Collection[int]) -> None:
        """Images that nobody could look at: their objects count as if they were not there."""
        self._is_left_out[list(rows)] = True

    def _full_size(self, row: int, image: Predictions, is_scored: Bool[np.ndarray, "N"]) -> list[Rle]:
        if image.mask_logits is None:
            raise ValueError("the ground truth has masks, the predictions have none")
        logits = image.mask_logits[torch.from_numpy(is_scored).to(image.mask_logits.device)]
        return full_size_codes(logits, self.ground_truth.size_hw(row))

    def compute(self) -> EvaluationResult:
        """All metrics; nothing can be added afterwards.

        In a torch.distributed process group every process calls it; it counts the images of all.
        """
        self._result = self._result or self._compute()
        return self._result

    def _compute(self) -> EvaluationResult:
        self._match_waiting()
        self._gather()
        truth = self.ground_truth
        is_counted = ~self._is_left_out
        missed = np.flatnonzero(is_counted & ~self._is_seen).tolist()
        wanted = ~truth.is_crowd & np.repeat(is_counted, np.diff(truth.offsets))
        boxes = self._boxes.curves(missed)
        masks = self._masks.curves(missed) if self._masks else None
        best = best_operating_point(truth.labels[wanted], np.frombuffer(self._judged, JUDGED))
        operating_point = {
            "F1": best.f1,
            "precision": best.precision,
            "recall": best.recall,
            "F1_threshold": best.threshold,
        }
        of_masks = {f"segm_{name}": value for name, value in masks.metrics().items()} if masks else {}
        return EvaluationResult(
            metrics={**boxes.metrics(), **operating_point, **of_masks},
            per_class=boxes.per_class(truth),
            segm_per_class=masks.per_class(truth) if masks else {},
            num_images=int(is_counted.sum()),
            num_objects=int(wanted.sum()),
            num_not_finite=self._not_finite,
            num_unreadable=int(self._is_left_out.sum()),
        )

    def _gather(self) -> None:
        """Take over what the other processes have seen, image by image from the first that has it."""
        if rank_and_world_size()[1] == 1:
            return
        self._boxes.gather()
        if self._masks:
            self._masks.gather()
        self._not_finite = sum(gathered(self._not_finite))
        parts = gathered((self._is_seen, self._is_left_out, self._judged))
        self._is_seen, self._judged = np.zeros_like(self._is_seen), bytearray()
        for is_seen, is_left_out, judged in parts:
            rows = np.frombuffer(judged, JUDGED)
            self._judged += rows[~self._is_seen[rows["image"]]].tobytes()
            self._is_seen |= is_seen
            self._is_left_out |= is_left_out
        self._is_left_out &= ~self._is_seen
