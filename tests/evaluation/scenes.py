"""Small ground truths and predictions, with masks or without, and pycocotools' numbers for them."""

import contextlib
import copy
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pycocotools import mask as mask_tools
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from rfdetr.classes import ClassTable
from rfdetr.data.annotations import Annotations
from rfdetr.data.sources import PictureFiles, Strings
from rfdetr.evaluation.coco_metrics import CocoEvaluator
from rfdetr.evaluation.results import EvaluationResult
from rfdetr.evaluation.results_file import ResultsFile
from rfdetr.masks import Segmentation
from rfdetr.types import Predictions

from ..data.packing import pack

CLASSES = ClassTable(category_ids=(3, 5, 8), names=("cat", "dog", "owl"), class_ids=(0, 1, 2))
Box = tuple[float, float, float, float]
SIDE, GRID = 200, 50  # of the images, and of the coarse masks in predictions


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
        annotation_file=Path("_annotations.coco.json"),
        classes=classes,
        pictures=PictureFiles(
            Path(), Strings.pack(f"{i}.jpg" for i in range(num_images)), np.zeros(num_images, np.bool_)
        ),
        image_ids=np.arange(num_images, dtype=np.int64)[::-1] * 10 + 7,
        sizes_hw=np.full((num_images, 2), SIDE, dtype=np.int64),
        offsets=np.searchsorted([thing.image for thing in things], np.arange(num_images + 1)).astype(np.int64),
        boxes_xywh=boxes,
        areas=np.array(areas, dtype=np.float64),
        labels=np.array([thing.label for thing in things], dtype=np.int64),
        is_crowd=np.array([thing.is_crowd for thing in things], dtype=np.bool_),
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


def with_masks(truth: Annotations, guesses: list[Predictions], seed: int) -> tuple[Annotations, list[Predictions]]:
    """Objects become polygons in one or two parts, or run-length code, and some crowd regions lose their mask.

    Guessed masks are ellipses with ragged edges, about as large as the box; every fifth has no pixel.
    """
    rng = np.random.default_rng(seed)
    outlines = [outline(box, is_crowd, rng) for box, is_crowd in zip(truth.boxes_xywh, truth.is_crowd, strict=True)]
    sizes_hw = truth.sizes_hw[np.repeat(np.arange(len(truth)), np.diff(truth.offsets))]
    truth = replace(truth, segmentations=pack(outlines, sizes_hw))
    return truth, [replace(image, mask_logits=coarse_masks(image.boxes.numpy(), rng)) for image in guesses]


def outline(box_xywh: np.ndarray, is_crowd: bool, rng: np.random.Generator) -> Any:
    """A `segmentation` as in COCO files."""
    x, y, w, h = box_xywh
    angles = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    ring = np.column_stack([x + w / 2 * (1 + np.cos(angles)), y + h / 2 * (1 + np.sin(angles))])
    polygons = [ring.ravel().tolist(), (ring * 0.3 + ring[0] * 0.7 + 1).ravel().tolist()][: rng.integers(1, 3)]
    if is_crowd and rng.random() < 0.3:
        return []
    if is_crowd or rng.random() < 0.3:
        rle = mask_tools.merge(mask_tools.frPyObjects(polygons, SIDE, SIDE))
        return {"size": rle["size"], "counts": rle["counts"].decode()}
    return polygons


def coarse_masks(boxes_xyxy: np.ndarray, rng: np.random.Generator) -> torch.Tensor:
    cells = (np.arange(GRID) + 0.5) * SIDE / GRID
    centers, radii = (boxes_xyxy[:, :2] + boxes_xyxy[:, 2:]) / 2, (boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]) / 2 + 1
    dx, dy = ((cells - centers[:, k : k + 1]) / radii[:, k : k + 1] for k in (0, 1))
    logits = 1 - dx[:, None, :] ** 2 - dy[:, :, None] ** 2 + rng.normal(0, 0.2, (len(boxes_xyxy), GRID, GRID))
    logits[::5] = -1
    return torch.from_numpy(logits).float()


def scored(
    truth: Annotations, guesses: Sequence[Predictions], folder: Path, max_dets: int = 500
) -> tuple[EvaluationResult, list[dict[str, Any]]]:
    """The result, and the rows that a reader of the results file gets."""
    with ResultsFile.open(folder / "results.json", truth) as results:
        evaluator = CocoEvaluator(truth, max_dets, results)
        for start in range(0, len(guesses), 5):
            rows = slice(start, start + 5)
            evaluator.update(truth.image_ids[rows].tolist(), guesses[rows])
        results.save()
    return evaluator.compute(), json.loads((folder / "results.json").read_text())


def as_coco(truth: Annotations) -> dict[str, Any]:
    """The annotation file; masks as polygons or compressed code."""
    category_id_of = truth.category_id_of
    images = np.repeat(truth.image_ids, np.diff(truth.offsets))
    return {
        "images": [
            {"id": image_id, "width": width, "height": height}
            for image_id, (height, width) in zip(truth.image_ids.tolist(), truth.sizes_hw.tolist(), strict=True)
        ],
        "categories": [
            {"id": i, "name": name} for i, name in zip(truth.classes.category_ids, truth.classes.names, strict=True)
        ],
        "annotations": [
            {
                "id": row + 1,
                "image_id": int(images[row]),
                "category_id": category_id_of[int(truth.labels[row])],
                "bbox": truth.boxes_xywh[row].tolist(),
                "area": float(truth.areas[row]),
                "iscrowd": int(truth.is_crowd[row]),
                **({} if truth.segmentations is None else {"segmentation": as_field(truth.segmentations[row])}),
            }
            for row in range(len(images))
        ],
    }


def as_field(segmentation: Segmentation) -> Any:
    if isinstance(segmentation, list):  # pycocotools cannot read an empty list
        return [polygon.ravel().tolist() for polygon in segmentation] or {"size": [SIDE, SIDE], "counts": [SIDE**2]}
    return {"size": segmentation["size"], "counts": segmentation["counts"].decode()}


def run_pycocotools(
    annotation_file: dict[str, Any],
    results: list[dict[str, Any]],
    max_dets: int,
    kind: Literal["bbox", "segm"] = "bbox",
) -> Any:
    """Masks are as large as they are: given a box too, pycocotools takes the box's area."""
    if kind == "segm":
        results = [{name: value for name, value in row.items() if name != "bbox"} for row in results]
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = copy.deepcopy(annotation_file)  # it replaces polygons by code
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(results), kind)
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
