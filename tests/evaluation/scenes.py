"""Small ground truths and predictions, and pycocotools' numbers for them."""

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from rfdetr.classes import ClassTable
from rfdetr.data.annotations import Annotations
from rfdetr.types import Predictions

CLASSES = ClassTable(category_ids=(3, 5, 8), names=("cat", "dog", "owl"), class_ids=(0, 1, 2))
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Thing:
    """An object in image number `image`."""

    image: int
    label: int
    box_xywh: Box
    is_crowd: bool = False
    area: float | None = None


def ground_truth(things: Sequence[Thing], num_images: int = 1, classes: ClassTable = CLASSES) -> Annotations:
    """Images have the ids 7, 17, 27, ... in falling order: neither their rows nor sorted."""
    things = sorted(things, key=lambda thing: thing.image)
    boxes = np.array([thing.box_xywh for thing in things], dtype=np.float64).reshape(-1, 4)
    areas = [w * h if thing.area is None else thing.area for thing, (*_, w, h) in zip(things, boxes, strict=True)]
    return Annotations(
        split="test",
        image_dir=Path(),
        annotation_file=Path("_annotations.coco.json"),
        classes=classes,
        file_names=np.array([f"{i}.jpg" for i in range(num_images)]),
        image_ids=np.arange(num_images, dtype=np.int64)[::-1] * 10 + 7,
        sizes_hw=np.full((num_images, 2), 200, dtype=np.int64),
        offsets=np.searchsorted([thing.image for thing in things], np.arange(num_images + 1)).astype(np.int64),
        boxes_xywh=boxes,
        areas=np.array(areas, dtype=np.float64),
        labels=np.array([thing.label for thing in things], dtype=np.int64),
        is_crowd=np.array([thing.is_crowd for thing in things], dtype=np.bool_),
        annotation_ids=np.arange(len(things), dtype=np.int64) + 1,
        category_id_of=dict(zip(classes.class_ids, classes.category_ids, strict=True)),
    )


def predictions(*rows: tuple[int, float, Box]) -> Predictions:
    """One image's predictions from (label, score, xywh box)."""
    boxes = torch.tensor([box for *_, box in rows], dtype=torch.float32).reshape(-1, 4)
    return Predictions(
        boxes=torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], dim=1),
        scores=torch.tensor([score for _, score, _ in rows], dtype=torch.float32),
        labels=torch.tensor([label for label, *_ in rows], dtype=torch.int64),
    )


def crowded_scene(seed: int, num_images: int = 24) -> tuple[Annotations, list[Predictions]]:
    """Crowds, images without objects, images without predictions, equal scores, overlapping objects, all sizes."""
    rng = np.random.default_rng(seed)
    things = [
        Thing(
            image,
            label=int(rng.integers(3)),
            box_xywh=tuple(np.concatenate([rng.uniform(0, 150, 2), np.exp(rng.uniform(1, 5, 2))])),
            is_crowd=bool(rng.random() < 0.1),
            area=float(rng.uniform(1, 12000)),
        )
        for image in range(num_images)
        if image % 5 != 1
        for _ in range(rng.integers(1, 20))
    ]
    truth = ground_truth(things, num_images)
    return truth, [guess(truth, image, rng) if image % 7 != 2 else predictions() for image in range(num_images)]


def guess(truth: Annotations, image: int, rng: np.random.Generator) -> Predictions:
    """Each object up to three times, displaced, and some boxes at random."""
    rows = np.arange(truth.offsets[image], truth.offsets[image + 1]).repeat(3)
    boxes = truth.boxes_xywh[rows] * (1 + rng.normal(0, 0.1, (len(rows), 4)))
    far = np.abs(rng.normal(60, 30, (10, 4)))
    labels = np.where(rng.random(len(rows)) < 0.8, truth.labels[rows], rng.integers(3, size=len(rows)))
    labels = np.concatenate([labels, rng.integers(3, size=len(far))])
    scores = rng.beta(2, 2, len(labels)).round(2)
    order = np.argsort(-scores, kind="stable")
    xywh = np.concatenate([boxes, far])[order].tolist()
    return predictions(*zip(labels[order].tolist(), scores[order].tolist(), map(tuple, xywh), strict=True))


def as_coco(truth: Annotations) -> dict[str, Any]:
    """The annotation file."""
    category_id_of = truth.category_id_of
    images = np.repeat(truth.image_ids, np.diff(truth.offsets))
    return {
        "images": [{"id": int(image_id)} for image_id in truth.image_ids],
        "categories": [
            {"id": i, "name": name} for i, name in zip(truth.classes.category_ids, truth.classes.names, strict=True)
        ],
        "annotations": [
            {
                "id": int(truth.annotation_ids[row]),
                "image_id": int(images[row]),
                "category_id": category_id_of[int(truth.labels[row])],
                "bbox": truth.boxes_xywh[row].tolist(),
                "area": float(truth.areas[row]),
                "iscrowd": int(truth.is_crowd[row]),
            }
            for row in range(len(images))
        ],
    }


def run_pycocotools(annotation_file: dict[str, Any], results: list[dict[str, Any]], max_dets: int) -> Any:
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = annotation_file
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(results), "bbox")
        evaluation.params.maxDets = sorted({1, 10, max_dets})
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation


def pycocotools_metrics(evaluation: Any, max_dets: int) -> tuple[dict[str, float | None], dict[str, float | None]]:
    """The metrics it knows, and the AP per class name."""
    limit = evaluation.params.maxDets.index(max_dets)
    precision, recall = evaluation.eval["precision"][..., limit], evaluation.eval["recall"][..., limit]

    def mean(values: np.ndarray) -> float | None:
        return values[values > -1].mean() if (values > -1).any() else None

    names = [evaluation.cocoGt.cats[category_id]["name"] for category_id in evaluation.params.catIds]
    metrics = {
        "mAP_50_95": mean(precision[..., 0]),
        "mAP_50": mean(precision[0, ..., 0]),
        "mAP_75": mean(precision[5, ..., 0]),
        "mAP_small": mean(precision[..., 1]),
        "mAP_medium": mean(precision[..., 2]),
        "mAP_large": mean(precision[..., 3]),
        "mAR": mean(recall[..., 0]),
    }
    return metrics, {name: mean(precision[:, :, k, 0]) for k, name in enumerate(names)}
