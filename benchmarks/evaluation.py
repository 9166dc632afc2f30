"""Evaluating detections beside the PyPI package rfdetr: time, memory, and how far the numbers are from pycocotools'.

    OMP_NUM_THREADS=1 python benchmarks/evaluation.py --other OTHER_VENV/bin/python

Both get the same drawn detections, batch by batch as from a model that is evaluated during training, and give AP, AR,
AP of each class, and the confidence with the best F1. Ours is `CocoEvaluator`; the other's is its public
`COCOEvalCallback` in a `Trainer.validate` whose model hands out the drawn detections: only the callback's two hooks,
the end of a batch and the end of the epoch, are timed. Of masks ours begins with the coarse ones of a model, the
other's with the masks of full size that its callback wants, which are made for it outside the clock. Peak memory is
what the process has gained over libraries and inputs (Linux: it reads /proc/self/status). `--other` may be left out.
"""

import argparse
import contextlib
import ctypes
import gc
import io
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from sides import Side, median_ratio, rounds_asked_for, spread, tell

WIDTH, HEIGHT, GRID = 640, 480, 78
MAX_DETS = 500
BATCH = 4
WARM_UP = 40  # images until all that does not depend on their number is loaded
METRICS = ("mAP_50_95", "mAP_50", "mAP_75", "mAR")
Scene = dict[str, np.ndarray]


def draw(folder: Path, images: int, detections: int, classes: int, masks: bool, objects: int = 7) -> None:
    """COCO-like truth, about so many objects in an image; each is found up to three times, the rest lies anywhere."""
    rng = np.random.default_rng(0)
    counts = rng.poisson(objects, images)
    sides = np.exp(rng.uniform(2, 5.5, (counts.sum(), 2)))
    corners = rng.uniform(0, 1, sides.shape) * ((WIDTH, HEIGHT) - sides)
    truth, labels = np.concatenate([corners, sides], axis=1).round(2), rng.integers(classes, size=len(sides))
    offsets = np.concatenate([[0], counts.cumsum()])
    boxes, scores, found = (np.zeros((images, detections, *rest), np.float32) for rest in ((4,), (), ()))
    for image in range(images):
        rows = np.arange(offsets[image], offsets[image + 1]).repeat(3)[:detections]
        others = detections - len(rows)
        anywhere = np.concatenate([rng.uniform(0, 440, (others, 2)), rng.uniform(5, 200, (others, 2))], axis=1)
        xywh = np.concatenate([truth[rows] * (1 + rng.normal(0, 0.08, (len(rows), 4))), anywhere])
        score = np.concatenate([rng.beta(4, 3, len(rows)), rng.beta(1, 8, others)]).round(3)  # rounded: ties
        order = np.argsort(-score, kind="stable")
        boxes[image] = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)[order]
        scores[image] = score[order]
        found[image] = np.concatenate([labels[rows], rng.integers(classes, size=others)])[order]
    np.savez(folder / "found.npz", boxes=boxes, scores=scores, labels=found.astype(np.int64))
    np.savez(folder / "truth.npz", boxes=truth, labels=labels, offsets=offsets)
    (folder / "test").mkdir()
    blank = io.BytesIO()
    Image.new("L", (WIDTH, HEIGHT)).save(blank, "png")
    for image in range(images):
        (folder / "test" / f"{image}.png").write_bytes(blank.getvalue())
    (folder / "test" / "_annotations.coco.json").write_text(
        json.dumps(coco_file(truth, labels, counts, classes, masks))
    )


def coco_file(truth: np.ndarray, labels: np.ndarray, counts: np.ndarray, classes: int, masks: bool) -> dict[str, Any]:
    image_of = np.repeat(np.arange(len(counts)), counts)
    images = [{"id": i, "file_name": f"{i}.png", "width": WIDTH, "height": HEIGHT} for i in range(len(counts))]
    annotations: list[dict[str, Any]] = []
    angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    for index, (x, y, w, h) in enumerate(truth.tolist()):
        row = {"image_id": int(image_of[index]), "category_id": int(labels[index]) + 1, "bbox": [x, y, w, h]}
        annotations.append({"id": index + 1, **row, "area": w * h, "iscrowd": 0})
        if masks:
            ring = np.column_stack([x + w / 2 * (1 + np.cos(angles)), y + h / 2 * (1 + np.sin(angles))])
            annotations[-1]["segmentation"] = [ring.ravel().round(2).tolist()]
    categories = [{"id": number + 1, "name": f"kind {number}", "supercategory": "none"} for number in range(classes)]
    return {"images": images, "annotations": annotations, "categories": categories}


def coarse_masks(boxes: torch.Tensor) -> torch.Tensor:
    """An ellipse in each box, on the grid of a model's masks: positive inside."""
    size = boxes.new_tensor([WIDTH, HEIGHT])
    centers, radii = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]).abs() / 2 + 1
    cells = (torch.arange(GRID) + 0.5) / GRID
    x, y = (((cells * size[k] - centers[:, k : k + 1]) / radii[:, k : k + 1]) ** 2 for k in (0, 1))
    return 1 - x[:, None, :] - y[:, :, None]


def full_masks(boxes: torch.Tensor) -> torch.Tensor:
    logits = coarse_masks(boxes).unsqueeze(1)
    return torch.nn.functional.interpolate(logits, (HEIGHT, WIDTH), mode="bilinear", align_corners=False) > 0


class Clock:
    """Adds up the seconds of some parts of the work."""

    def __init__(self) -> None:
        self.seconds = 0.0

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds += time.perf_counter() - started


Evaluation = Callable[[int, Clock], dict[str, float]]
"""Evaluate the first images: how many, and the clock."""


def ours(folder: Path, masks: bool) -> Evaluation:
    from rfdetr.data.reading import read_split
    from rfdetr.evaluation.coco_metrics import CocoEvaluator
    from rfdetr.types import Predictions

    truth, found = read_split(folder, "test", masks=masks), tensors(folder)

    def evaluate(images: int, clock: Clock) -> dict[str, float]:
        part = truth if images == len(truth) else truth.subset(np.arange(images))
        with clock.running():
            evaluator = CocoEvaluator(part, MAX_DETS)
        for rows in batches(images):
            predictions = [
                Predictions(*(found[name][row] for name in ("boxes", "scores", "labels")), coarse)
                for row in rows
                for coarse in [coarse_masks(found["boxes"][row]) if masks else None]
            ]
            with clock.running():
                evaluator.update(part.image_ids[rows.start : rows.stop].tolist(), predictions)
        with clock.running():
            result = evaluator.compute()
        return {name: value for name, value in result.metrics.items() if value is not None}

    return evaluate


def theirs(folder: Path, masks: bool) -> Evaluation:
    from pytorch_lightning import LightningModule, Trainer
    from rfdetr.training.callbacks import COCOEvalCallback
    from torch.utils.data import DataLoader

    found, truth = tensors(folder), np.load(folder / "truth.npz")
    size, offsets = torch.tensor([HEIGHT, WIDTH]), truth["offsets"]
    xywh = torch.from_numpy(truth["boxes"]).float()
    cxcywh = torch.cat([xywh[:, :2] + xywh[:, 2:] / 2, xywh[:, 2:]], dim=1) / size.flip(0).repeat(2)
    labels = torch.from_numpy(truth["labels"])

    def target(row: int) -> dict[str, torch.Tensor]:
        own = slice(offsets[row], offsets[row + 1])
        fields = {"boxes": cxcywh[own], "labels": labels[own], "image_id": torch.tensor([row]), "orig_size": size}
        fields |= {"size": size, "iscrowd": torch.zeros(own.stop - own.start, dtype=torch.int64)}
        fields["area"] = xywh[own, 2] * xywh[own, 3]
        if masks:
            corners = torch.cat([xywh[own, :2], xywh[own, :2] + xywh[own, 2:]], dim=1)
            fields["masks"] = full_masks(corners).squeeze(1)
        return fields

    def result(row: int) -> dict[str, torch.Tensor]:
        fields = {name: found[name][row] for name in ("boxes", "scores", "labels")}
        return {**fields, "masks": full_masks(fields["boxes"])} if masks else fields

    class Replay(LightningModule):  # type: ignore[misc]
        def validation_step(self, rows: list[int], _: int) -> dict[str, Any]:
            return {"results": [result(row) for row in rows], "targets": [target(row) for row in rows]}

    def evaluate(images: int, clock: Clock) -> dict[str, float]:
        class Timed(COCOEvalCallback):  # type: ignore[misc]
            def on_validation_batch_end(self, *args: Any, **settings: Any) -> None:
                with clock.running():
                    super().on_validation_batch_end(*args, **settings)

            def on_validation_epoch_end(self, *args: Any, **settings: Any) -> None:
                with clock.running():
                    super().on_validation_epoch_end(*args, **settings)

        quiet = {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False, "accelerator": "cpu"}
        trainer = Trainer(callbacks=[Timed(MAX_DETS, segmentation=masks)], **quiet)
        with contextlib.redirect_stdout(io.StringIO()):
            loader = DataLoader([list(rows) for rows in batches(images)], batch_size=None)
            trainer.validate(Replay(), loader, verbose=False)
        prefix = len("val/")
        return {name[prefix:]: float(value) for name, value in trainer.callback_metrics.items()}

    return evaluate


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    with np.load(folder / "found.npz") as found:
        return {name: torch.from_numpy(found[name]) for name in found.files}


def batches(images: int) -> Iterator[range]:
    for start in range(0, images, BATCH):
        yield range(start, min(start + BATCH, images))


def pycocotools(folder: Path, images: int, masks: bool) -> dict[str, float]:
    from pycocotools import mask as mask_tools
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    found = tensors(folder)
    rows: list[dict[str, Any]] = []
    for image in range(images):
        boxes = found["boxes"][image]
        fields = (boxes.double(), found["scores"][image], found["labels"][image])
        columns = zip(*(field.tolist() for field in fields), strict=True)
        for (x1, y1, x2, y2), score, label in columns:
            box = {"bbox": [x1, y1, x2 - x1, y2 - y1], "score": score}
            rows.append({"image_id": image, "category_id": label + 1, **box})
        if masks:
            codes = mask_tools.encode(np.asfortranarray(full_masks(boxes).squeeze(1).permute(1, 2, 0).byte().numpy()))
            for row, code in zip(rows[-len(boxes) :], codes, strict=True):
                row["segmentation"] = code
    metrics = {}
    with contextlib.redirect_stdout(io.StringIO()):
        for kind, prefix in [("bbox", ""), ("segm", "segm_")][: 1 + masks]:
            truth = COCO(str(folder / "test" / "_annotations.coco.json"))
            own = [{name: value for name, value in row.items() if kind == "bbox" or name != "bbox"} for row in rows]
            run = COCOeval(truth, truth.loadRes(own), kind)
            run.params.maxDets = [1, 10, MAX_DETS]
            run.evaluate()
            run.accumulate()
            precision, recall = run.eval["precision"][:, :, :, 0, -1], run.eval["recall"][:, :, 0, -1]
            values = (precision, precision[0], precision[5], recall)
            metrics |= {prefix + name: float(v[v > -1].mean()) for name, v in zip(METRICS, values, strict=True)}
    return metrics


def resident_mib(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field))


def serve(side: str, folder: Path, images: int, masks: bool) -> None:
    torch.set_num_threads(1)
    evaluate = {"ours": ours, "the other's": theirs}[side](folder, masks)
    evaluate(min(WARM_UP, images), Clock())
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    before = resident_mib("VmRSS")
    for _ in rounds_asked_for():
        Path("/proc/self/clear_refs").write_text("5")
        clock, busy = Clock(), time.process_time()
        metrics = evaluate(images, clock)
        busy = time.process_time() - busy
        tell({"seconds": clock.seconds, "busy": busy, "peak": resident_mib("VmHWM") - before, "metrics": metrics})


def compare(title: str, args: argparse.Namespace, images: int, detections: int, masks: bool, reference: bool) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw(folder, images, detections, args.classes, masks)
        expected = pycocotools(folder, images, masks) if reference else {}
        pythons = {"ours": sys.executable} | ({"the other's": args.other} if args.other else {})
        sides = {
            side: Side(python, __file__, side, folder, images, int(masks), log=folder / "log")
            for side, python in pythons.items()
        }
        rounds = [{side: process.ask() for side, process in sides.items()} for _ in range(args.rounds)]
        for process in sides.values():
            process.close()
    print(f"\n{title}\n\n| evaluation | seconds | times faster | peak MiB | share of the other's | from pycocotools |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    of = {side: {key: [r[side][key] for r in rounds] for key in ("seconds", "peak")} for side in sides}
    slowest = list(sides)[-1]
    for side, measured in of.items():
        faster = median_ratio(of[slowest]["seconds"], measured["seconds"])
        share = max(measured["peak"]) / max(of[slowest]["peak"])
        metrics = rounds[0][side]["metrics"]
        gap = max((abs(metrics[name] - value) for name, value in expected.items() if name in metrics), default=None)
        numbers = f"{spread(measured['seconds'])} | {faster:.2f} | {max(measured['peak']):.0f} | {share:.2f}"
        print(f"| {side} | {numbers} | {'-' if gap is None else f'{gap:.0e}'} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--other", help="a Python with the PyPI package rfdetr")
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--classes", type=int, default=80)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--serve", nargs=4, metavar=("SIDE", "FOLDER", "IMAGES", "MASKS"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        side, folder, images, masks = args.serve
        serve(side, Path(folder), int(images), masks == "1")
        return
    few, masked = min(args.images, 200), min(args.images, 100)
    compare(f"{args.images} images x 300 detections, boxes", args, args.images, 300, masks=False, reference=False)
    compare(f"{few} images x 300 detections, boxes", args, few, 300, masks=False, reference=True)
    compare(f"{masked} images x 100 detections, boxes and masks", args, masked, 100, masks=True, reference=True)


if __name__ == "__main__":
    main()
