"""Which native COCO evaluator? Equality with pycocotools, time and peak memory of the candidates.

    pip install numpy pycocotools hotcoco faster-coco-eval ultrafast-pycocotools vernier
    python benchmarks/evaluators.py --data ../shared/data/bccd ../shared/data/fruits-nuts-seg

Every measurement is a process of its own. The candidates take turns, round by round, so that a slow minute of the
machine hits all of them; the table shows medians. Predictions start as the array (image, x, y, w, h, score, category)
that a training loop has, and end as precision and recall arrays; each candidate takes them in its own best way.
Peak memory is what the process gained over the loaded inputs and libraries (Linux: it reads /proc/self/status).
"""

import argparse
import contextlib
import copy
import importlib
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as masks

MAX_DETS = [1, 10, 500]
REFERENCE = "pycocotools"
Arrays = tuple[np.ndarray, np.ndarray]  # precision [T, R, K, A, M] and recall [T, K, A, M]; -1 is undefined
Stage = Callable[..., Any]


def camel_case(module: str, evaluator: str) -> tuple[Stage, Stage]:
    """The packages with pycocotools' own interface."""
    name, _, attribute = evaluator.rpartition(".")
    coco_class = importlib.import_module(module).COCO
    eval_class = getattr(importlib.import_module(name), attribute)

    def build(truth: dict[str, Any]) -> Any:
        dataset = coco_class()
        dataset.dataset = truth
        dataset.createIndex()
        return dataset

    def evaluate(dataset: Any, predictions: Any, iou_type: str) -> Arrays:
        run = eval_class(dataset, dataset.loadRes(predictions), iou_type)
        run.params.maxDets = MAX_DETS
        run.evaluate()
        run.accumulate()
        return run.eval["precision"], run.eval["recall"]

    return build, evaluate


def columns(truth: dict[str, Any]) -> dict[str, np.ndarray]:
    """The annotations of a dataset as arrays."""
    rows = truth["annotations"]
    return {
        "id": np.array([row["id"] for row in rows], np.int64),
        "image_id": np.array([row["image_id"] for row in rows], np.int64),
        "category_id": np.array([row["category_id"] for row in rows], np.int64),
        "bbox": np.array([row["bbox"] for row in rows], np.float64).reshape(-1, 4),
        "area": np.array([row["area"] for row in rows], np.float64),
        "iscrowd": np.array([row["iscrowd"] for row in rows], bool),
    }


def hotcoco() -> tuple[Stage, Stage]:
    package = importlib.import_module("hotcoco")

    def build(truth: dict[str, Any]) -> Any:
        if "segmentation" in truth["annotations"][0]:
            return package.COCO(truth)
        table = columns(truth)
        return package.COCO.from_arrays(
            truth["images"],
            truth["categories"],
            table["image_id"],
            table["category_id"],
            table["bbox"],
            ids=table["id"],
            area=table["area"],
            iscrowd=table["iscrowd"],
        )

    def evaluate(dataset: Any, predictions: Any, iou_type: str) -> Arrays:
        run = package.COCOeval(dataset, dataset.load_res(predictions), iou_type)
        run.params.max_dets = MAX_DETS
        run.evaluate()
        run.accumulate()
        return run.eval["precision"], run.eval["recall"]

    return build, evaluate


def vernier() -> tuple[Stage, Stage]:
    # Its public Evaluator returns summaries; the arrays come from what its pycocotools shim is made of.
    package = importlib.import_module("vernier.instance")
    grids = {"bbox": package.evaluate_bbox_grid, "segm": package.evaluate_segm_grid}

    def build(truth: dict[str, Any]) -> Any:
        if "segmentation" in truth["annotations"][0]:
            return package.CocoDataset.from_json(json.dumps(truth).encode())
        images = {
            name: np.array([image[name] for image in truth["images"]], np.int64) for name in ("id", "width", "height")
        }
        return package.CocoDataset.from_arrays(images, columns(truth), truth["categories"])

    def evaluate(dataset: Any, predictions: Any, iou_type: str) -> Arrays:
        grid = grids[iou_type](
            dataset,
            predictions,
            parity_mode="strict",
            max_dets_per_image=MAX_DETS[-1],
            use_cats=True,
            num_threads=os.cpu_count(),
        )
        sums = grid.accumulate(MAX_DETS)
        return sums.precision, sums.recall

    return build, evaluate


CANDIDATES: dict[str, Callable[[], tuple[Stage, Stage]]] = {
    REFERENCE: lambda: camel_case("pycocotools.coco", "pycocotools.cocoeval.COCOeval"),
    "hotcoco": hotcoco,
    "ultrafast-pycocotools": lambda: camel_case("ultrafast_pycocotools", "ultrafast_pycocotools.COCOeval"),
    "faster-coco-eval": lambda: camel_case("faster_coco_eval", "faster_coco_eval.COCOeval_faster"),
    "vernier": vernier,
}


def synthetic(num_images: int, num_detections: int, num_classes: int, seed: int = 0) -> tuple[dict[str, Any], Any]:
    """COCO-like truth (7 objects per image, some images empty, 1 % crowds); most predictions are far off."""
    rng = np.random.default_rng(seed)
    images = [{"id": 2 * i + 1, "width": 640, "height": 480} for i in range(num_images)]
    annotations: list[dict[str, Any]] = []
    for image in images:
        for _ in range(rng.poisson(7)):
            w, h = np.exp(rng.uniform(2, 5.5, 2))
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image["id"],
                    "category_id": int(rng.integers(num_classes)) + 1,
                    "bbox": [float(rng.uniform(0, 640)), float(rng.uniform(0, 480)), float(w), float(h)],
                    "area": float(w * h * rng.uniform(0.4, 1)),
                    "iscrowd": int(rng.random() < 0.01),
                }
            )
    truth = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": k + 1, "name": f"class {k}"} for k in range(num_classes)],
    }
    return truth, jittered(truth, num_detections, rng)


def jittered(truth: dict[str, Any], num_detections: int, rng: np.random.Generator) -> np.ndarray:
    """Per image, each object up to three times with noise, then random boxes; every ninth image has none."""
    table, classes = columns(truth), np.array([category["id"] for category in truth["categories"]])
    parts = []
    for index, image in enumerate(truth["images"]):
        if index % 9 == 8:
            continue
        rows = np.flatnonzero(table["image_id"] == image["id"]).repeat(3)[:num_detections]
        corners, sides = rng.uniform((0, 5), (600, 200), (num_detections - len(rows), 2, 2)).transpose(2, 0, 1)
        random = np.concatenate([corners, sides], axis=1)
        noise = 1 + rng.normal(0, 0.12, (len(rows), 4))
        boxes = np.concatenate([table["bbox"][rows] * noise, random])
        labels = np.concatenate([table["category_id"][rows], rng.choice(classes, len(random))])
        scores = np.concatenate([rng.beta(4, 3, len(rows)), rng.beta(1, 8, len(random))]).round(3)  # rounded: ties
        parts.append(np.column_stack([np.full(len(boxes), image["id"]), np.abs(boxes), scores, labels]))
    return np.concatenate(parts).astype(np.float64)


def real(folder: Path, split: str, iou_type: str) -> tuple[dict[str, Any], Any]:
    """The annotations of a real dataset with jittered and random predictions; a fifth of the objects made crowds."""
    truth = json.loads((folder / split / "_annotations.coco.json").read_text())
    rng = np.random.default_rng(1)
    for row in truth["annotations"]:
        row["iscrowd"] = int(rng.random() < 0.2)
        if iou_type == "bbox":
            row.pop("segmentation", None)
    predictions = jittered(truth, 40 if iou_type == "segm" else 600, rng)
    return truth, with_masks(truth, predictions) if iou_type == "segm" else predictions


def with_masks(truth: dict[str, Any], predictions: np.ndarray) -> list[dict[str, Any]]:
    """COCO results with an ellipse in each box as its mask."""
    sizes = {image["id"]: (image["height"], image["width"]) for image in truth["images"]}
    for row in truth["annotations"]:
        rings = row["segmentation"]
        if isinstance(rings, list):
            row["segmentation"] = masks.merge(masks.frPyObjects(rings, *sizes[row["image_id"]]))
        elif isinstance(rings["counts"], list):
            row["segmentation"] = masks.frPyObjects(rings, *sizes[row["image_id"]])
        if isinstance(row["segmentation"]["counts"], bytes):
            row["segmentation"]["counts"] = row["segmentation"]["counts"].decode()
    angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    results = []
    for image_id, x, y, w, h, score, category_id in predictions.tolist():
        ring = np.column_stack([x + w / 2 * (1 + np.cos(angles)), y + h / 2 * (1 + np.sin(angles))]).ravel()
        rle = masks.merge(masks.frPyObjects([ring.tolist()], *sizes[int(image_id)]))
        rle["counts"] = rle["counts"].decode()
        row = {"image_id": int(image_id), "category_id": int(category_id), "bbox": [x, y, w, h], "score": score}
        results.append(row | {"segmentation": rle})
    return results


def peak_mib() -> float:
    """Highest resident memory of this process since `reset_peak`."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("no VmHWM in /proc/self/status")


def reset_peak() -> float:
    Path("/proc/self/clear_refs").write_text("5")
    return peak_mib()


def load_case(case: Path) -> tuple[dict[str, Any], Any, str]:
    truth = json.loads((case / "truth.json").read_text())
    array = case / "predictions.npy"
    if array.exists():
        return truth, np.load(array), "bbox"
    return truth, json.loads((case / "predictions.json").read_text()), "segm"


def save_case(folder: Path, truth: dict[str, Any], predictions: Any) -> Path:
    folder.mkdir()
    (folder / "truth.json").write_text(json.dumps(truth))
    if isinstance(predictions, np.ndarray):
        np.save(folder / "predictions.npy", predictions)
    else:
        (folder / "predictions.json").write_text(json.dumps(predictions))
    return folder


def work(candidate: str, case: Path, arrays: Path) -> None:
    """One measurement; the worker process ends here."""
    truth, predictions, iou_type = load_case(case)
    build, evaluate = CANDIDATES[candidate]()
    before = reset_peak()
    with contextlib.redirect_stdout(io.StringIO()):
        start = time.perf_counter()
        dataset = build(copy.deepcopy(truth) if iou_type == "segm" else truth)
        built = time.perf_counter()
        precision, recall = evaluate(dataset, predictions, iou_type)
        end = time.perf_counter()
    peak = peak_mib() - before
    np.savez(arrays, precision=np.asarray(precision), recall=np.asarray(recall))
    print(json.dumps({"build_s": built - start, "evaluate_s": end - built, "peak_mib": peak}))


def measure(candidate: str, case: Path) -> tuple[dict[str, float], Arrays]:
    arrays = case / f"{candidate}.npz"
    command = [sys.executable, __file__, "--work", candidate, str(case), str(arrays)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{candidate}: {done.stderr[-2000:]}")
    with np.load(arrays) as loaded:
        return json.loads(done.stdout.splitlines()[-1]), (loaded["precision"], loaded["recall"])


def difference(result: Arrays, reference: Arrays) -> float:
    """Largest difference in any element of precision and recall: IoU x recall x class x area range x max dets."""
    pairs = zip(result, reference, strict=True)
    return max(float(np.abs(ours.reshape(theirs.shape) - theirs).max()) for ours, theirs in pairs)


def compare(title: str, case: Path, rounds: int, candidates: Iterable[str]) -> None:
    reference_run, reference = measure(REFERENCE, case)
    runs: dict[str, list[dict[str, float]]] = {REFERENCE: [reference_run]}
    gaps = {REFERENCE: 0.0}
    for _ in range(rounds):
        for candidate in candidates:
            run, result = measure(candidate, case)
            runs.setdefault(candidate, []).append(run)
            gaps[candidate] = max(gaps.get(candidate, 0.0), difference(result, reference))
    print(f"\n{title}\n\n| evaluator | truth s | evaluation s | peak MiB | largest difference | runs |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for candidate, measured in runs.items():
        build, evaluation, peak = (
            statistics.median(run[key] for run in measured) for key in ("build_s", "evaluate_s", "peak_mib")
        )
        print(
            f"| {candidate} | {build:.3f} | {evaluation:.3f} | {peak:.0f} | {gaps[candidate]:.1e} | {len(measured)} |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, nargs="*", default=[], help="folders in Roboflow's COCO layout")
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--detections", type=int, default=300, help="per image")
    parser.add_argument("--classes", type=int, default=80)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--work", nargs=3, metavar=("CANDIDATE", "CASE", "ARRAYS"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        candidate, case, arrays = args.work
        work(candidate, Path(case), Path(arrays))
        return
    others = [name for name in CANDIDATES if name != REFERENCE]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for dataset in args.data:
            for split in ("valid", "test"):
                for iou_type in ("bbox", "segm"):
                    if iou_type == "segm" and not has_masks(dataset, split):
                        continue
                    case = save_case(root / f"{dataset.name}-{split}-{iou_type}", *real(dataset, split, iou_type))
                    compare(f"{dataset.name} {split}, {iou_type}", case, 1, others)
        case = save_case(root / "small", *synthetic(200, 100, 5))
        compare("synthetic, 200 images x 100 detections x 5 classes", case, 1, others)
        case = save_case(root / "large", *synthetic(args.images, args.detections, args.classes))
        title = f"synthetic, {args.images} images x {args.detections} detections x {args.classes} classes"
        compare(f"{title}; {os.cpu_count()} cores", case, args.rounds, others)


def has_masks(folder: Path, split: str) -> bool:
    truth = json.loads((folder / split / "_annotations.coco.json").read_text())
    return all(row.get("segmentation") for row in truth["annotations"])


if __name__ == "__main__":
    main()
