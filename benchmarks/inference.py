"""Milliseconds per image of `predict` on the CPU, beside the PyPI package of the same name: interleaved, in rounds.

    python benchmarks/inference.py --other OTHER_VENV/bin/python
    python benchmarks/inference.py --other OTHER_VENV/bin/python --cases nano --weights FILE --images FOLDER

Both read the same files from disk, with the same weights (a checkpoint that both open) and threads. Without `--weights`
these are random, and speed is all that is compared; with trained ones the detections are, too, and if the folder is a
split in COCO's format its mAP is computed.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.optimize import linear_sum_assignment
from sides import Side, median_ratio, rounds_asked_for, spread, tell

CLASSES = {"nano": "RFDETRNano", "small": "RFDETRSmall", "seg-nano": "RFDETRSegNano"}
# Number of images, height, width.
DRAWN = (8, 480, 640)
THRESHOLD = 0.3
LOW_THRESHOLD = 0.001
"""Of what mAP is computed from."""
# What the other package has to be told of a checkpoint.
OWN = ("resolution", "num_classes", "num_queries", "num_select", "group_detr")
OURS = {"ours": "", "ours, bf16": "bf16", "ours, int8": "int8", "ours, int8-bf16": "int8-bf16"}
"""Precisions of `optimize`."""
OTHERS = ("other", "other bf16", "other compiled")


def draw(folder: Path) -> None:
    """Photos of coloured squares; what is on them is all the same to the time a detector takes."""
    random = np.random.default_rng(0)
    count, height, width = DRAWN
    for index in range(count):
        colours = random.integers(0, 256, (height // 16, width // 16, 3), dtype=np.uint8)
        picture = Image.fromarray(colours).resize((width, height), Image.Resampling.BICUBIC)
        picture.save(folder / f"{index:02}.jpg", quality=90)


def pictures(folder: Path) -> list[str]:
    return sorted(str(file) for file in folder.iterdir() if file.suffix in (".jpg", ".png"))


def opened(side: str, size: str, weights: str) -> Any:
    import torch

    import rfdetr

    if side in OURS:
        model: Any = rfdetr.from_checkpoint(weights, device="cpu")
        if OURS[side]:
            model.optimize(precision=OURS[side])
        return model
    saved = torch.load(weights, map_location="cpu", weights_only=False)
    own = saved["args"] if isinstance(saved["args"], dict) else vars(saved["args"])
    model = getattr(rfdetr, CLASSES[size])(
        pretrain_weights=weights,
        device="cpu",
        **{name: own[name] for name in OWN if name in own},
    )
    if side != "other":
        model.inference(compile=side == "other compiled", batch_size=1, dtype=torch.bfloat16)
    return model


def serve(side: str, size: str, weights: str, folder: str, threads: int) -> None:
    """Each line: seconds for one image, and for each of a folder. Before: the seconds to prepare, and what is found."""
    import torch

    torch.set_num_threads(threads)
    start = time.perf_counter()
    model = opened(side, size, weights)
    prepared = time.perf_counter() - start
    files = pictures(Path(folder))
    one_by_one = side in OTHERS[1:]  # it is prepared for one

    def predict_all(threshold: float = THRESHOLD) -> Any:
        if one_by_one:
            return [model.predict(file, threshold=threshold) for file in files]
        return model.predict(files, threshold=threshold)

    found = predict_all(LOW_THRESHOLD)
    tell([prepared, [[d.xyxy.tolist(), d.class_id.tolist(), d.confidence.tolist()] for d in found]])
    for _ in rounds_asked_for():
        alone = [seconds(lambda file=file: model.predict(file, threshold=THRESHOLD)) for file in files[:5]]
        tell([statistics.median(alone), seconds(predict_all) / len(files)])


def seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def agreement(expected: list[Any], found: list[Any]) -> str:
    """How near to the expected detections above the threshold the found ones are, each being that of one at most."""
    overlaps: list[float] = []
    scores: list[float] = []
    for all_expected, all_found in zip(expected, found, strict=True):
        boxes, classes, values = arrays(all_expected, THRESHOLD)
        other_boxes, other_classes, other_values = arrays(all_found)
        same = iou(boxes, other_boxes) * (classes[:, None] == other_classes)
        rows, columns = linear_sum_assignment(abs(values[:, None] - other_values) - same)
        overlaps += same[rows, columns].tolist() + [0.0] * (len(boxes) - len(rows))
        scores += abs(values[rows] - other_values[columns]).tolist()
    if not overlaps:
        return "none expected"
    low = [f"{np.quantile(overlaps, part):.3f}" for part in (0.5, 0.01, 0)]
    high = [f"{np.quantile(scores, part):.3f}" for part in (0.5, 0.99, 1)]
    return (
        f"{len(overlaps)} above {THRESHOLD}: IoU {low[0]} in the median, {low[1]} at the worst hundredth, least "
        f"{low[2]}; scores {high[0]}, {high[1]}, at most {high[2]} off"
    )


def arrays(detections: Any, threshold: float = 0) -> Any:
    boxes, classes, scores = (np.array(part) for part in detections)
    kept = scores > threshold
    return boxes.reshape(-1, 4)[kept], classes[kept], scores[kept]


def iou(a: Any, b: Any) -> Any:
    corners = np.maximum(a[:, None, :2], b[:, :2]), np.minimum(a[:, None, 2:], b[:, 2:])
    shared = (corners[1] - corners[0]).clip(0).prod(-1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(-1) for boxes in (a, b)]
    return shared / (areas[0][:, None] + areas[1] - shared)


def accuracy(weights: Path, folder: Path, found: list[Any]) -> float:
    """mAP 50:95 of what is found in the split that the folder holds."""
    import torch

    import rfdetr
    from rfdetr.data.reading import read_split
    from rfdetr.evaluation.coco_metrics import CocoEvaluator
    from rfdetr.types import Predictions

    classes = rfdetr.from_checkpoint(weights, device="cpu").classes
    split = read_split(folder.parent, folder.name)
    split = split.with_classes(classes) if classes else split
    id_of = {Path(split.pictures.name(row)).name: int(image_id) for row, image_id in enumerate(split.image_ids)}
    evaluator = CocoEvaluator(split)
    for file, (boxes, class_ids, scores) in zip(pictures(folder), found, strict=True):
        tensors = torch.tensor(boxes).view(-1, 4), torch.tensor(scores), torch.tensor(class_ids, dtype=torch.long)
        evaluator.update([id_of[Path(file).name]], [Predictions(*tensors)])
    return evaluator.compute()["mAP_50_95"] or 0.0


def compare(size: str, weights: Path, folder: Path, given: argparse.Namespace) -> None:
    from rfdetr.devices import processor_has
    from rfdetr.inference.optimized import VNNI

    ours = [name for name, precision in OURS.items() if "int8" not in precision or processor_has(*VNNI)]
    names = (*ours, *(OTHERS[: 3 if given.compiled else 2] if given.other else ()))
    sides = {
        name: Side(
            given.other if name in OTHERS else sys.executable, __file__, name, size, weights, folder, given.threads
        )
        for name in names
    }
    first = {name: side.hear() for name, side in sides.items()}
    rounds = [{name: side.ask() for name, side in sides.items()} for _ in range(given.rounds + 1)][1:]
    for name in names:
        cells = [f"{first[name][0]:.1f}"]
        for kind in (0, 1):
            times = [turn[name][kind] for turn in rounds]
            cells.append(spread([1000 * t for t in times], 0))
            for other in OTHERS[:2]:
                base = [turn[other][kind] for turn in rounds] if given.other else []
                cells.append(f"{median_ratio(base, times):.2f}" if base else "")
        print(f"| {size} | {name} | {' | '.join(cells)} |", flush=True)
    for name in names if given.weights else ():
        if (folder / "_annotations.coco.json").exists():
            print(f"{size}, {name}: mAP 50:95 {accuracy(weights, folder, first[name][1]):.4f}")
        if name != "ours":
            print(f"{size}, {name} against ours: {agreement(first['ours'][1], first[name][1])}")
    for side in sides.values():
        side.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--other", help="a Python with the other package")
    parser.add_argument("--compiled", action="store_true", help="also its compiled mode: minutes to prepare")
    parser.add_argument("--cases", nargs="+", choices=CLASSES, default=["nano", "small"])
    parser.add_argument("--weights", type=Path, help="a trained checkpoint of the one case")
    parser.add_argument("--images", type=Path, help="a folder of images, as the test split of a COCO dataset")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--serve", nargs=5, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        *words, threads = given.serve
        serve(*words, int(threads))
        return
    import rfdetr

    with tempfile.TemporaryDirectory() as temporary:
        folder = given.images or Path(temporary)
        if given.images is None:
            draw(folder)
        print("| size | side | prepared in s | ms, one image | x other | x bf16 | ms, of a folder | x other | x bf16 |")
        print("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
        for size in given.cases:
            weights = given.weights or Path(temporary) / f"{size}.pth"
            if given.weights is None:
                getattr(rfdetr, CLASSES[size])(pretrain_weights=None, device="cpu").save(weights)
            compare(size, weights, folder, given)


if __name__ == "__main__":
    main()
