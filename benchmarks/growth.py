"""What an image costs, in time and memory, when there is more of something: images, objects, classes, pixels.

    OMP_NUM_THREADS=1 python benchmarks/growth.py [--parts step losses data evaluation prediction]

Each line is a process of its own, in which one thing differs from the first line of its table. It does the work once to
warm up, and once or more for the figures: milliseconds of processor time for each image, which other jobs disturb less
than seconds do, and what the work took at most over what the process had before (Linux: /proc/self/status).
"""

import argparse
import contextlib
import gc
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

Case = dict[str, Any]
Work = tuple[int, Callable[[], object]]
"""How many images one call is for, and the call."""
WIDTH, HEIGHT = 640, 480


def random_targets(case: Case, size: int) -> list[Any]:
    generator = torch.Generator().manual_seed(0)

    def target(image: int) -> dict[str, Any]:
        centers = torch.rand(case["objects"], 2, generator=generator) * 0.6 + 0.2
        sides = torch.rand(case["objects"], 2, generator=generator) * 0.3 + 0.02
        labels = torch.randint(case["classes"], (case["objects"],), generator=generator)
        fields = {"boxes": torch.cat([centers, sides], dim=1), "labels": labels, "image_id": image}
        if case.get("masks"):
            fields["masks"] = torch.rand(case["objects"], size, size, generator=generator) > 0.7
        return {**fields, "orig_size": torch.tensor([HEIGHT, WIDTH])}

    return [target(image) for image in range(case["batch"])]


def step(case: Case, folder: Path) -> Work:
    """Forward and backward pass, losses, optimiser, average."""
    from rfdetr.config.presets import preset
    from rfdetr.config.runs import TrainConfig
    from rfdetr.models.detector import Detector
    from rfdetr.training.state import Progress
    from rfdetr.training.step import TrainingStep
    from rfdetr.types import ImageBatch

    size = case["resolution"]
    config = preset("seg-nano" if case.get("masks") else "nano").replace(num_classes=case["classes"], resolution=size)
    run = TrainConfig(dataset_dir=folder, output_dir=folder, batch_size=case["batch"], grad_accum_steps=1)
    progress = Progress(seed=0, num_images=1000, images_per_step=case["batch"])
    take = TrainingStep(Detector(config).train(), run, progress, 250, torch.device("cpu"))
    images = torch.randint(256, (case["batch"], 3, size, size), dtype=torch.uint8)
    batch = ImageBatch(images, random_targets(case, size))
    return case["batch"], lambda: take([batch])


def losses(case: Case, _: Path) -> Work:
    """Assignment and losses with their backward pass, for random outputs of two decoder layers and the encoder."""
    from rfdetr.models.criterion import detection_losses
    from rfdetr.types import LayerOutputs, MaskLogits, RawOutputs

    queries, grid, batch = 13 * (100 if case.get("masks") else 300), 78, case["batch"]

    def random(*shape: int) -> torch.Tensor:
        return torch.rand(shape).requires_grad_()

    def layer() -> LayerOutputs:
        outputs: LayerOutputs = {
            "pred_logits": random(batch, queries, case["classes"] + 1),
            "pred_boxes": random(batch, queries, 4),
        }
        if case.get("masks"):
            masks = MaskLogits(random(batch, 256, grid, grid), random(batch, queries, 256), random(batch, queries))
            outputs["pred_masks"] = masks
        return outputs

    outputs: RawOutputs = {**layer(), "aux_outputs": [layer()], "enc_outputs": layer()}
    targets = random_targets(case, 4 * grid)
    return batch, lambda: sum(detection_losses(outputs, targets, torch.ones(()), groups=13).values()).backward()  # type: ignore[union-attr]


def data(case: Case, folder: Path) -> Work:
    """Read a split, plan an epoch, and load and augment items to make up 32."""
    from rfdetr.data.batches import EpochBatches, SampleRequest
    from rfdetr.data.loading import TrainingDataset
    from rfdetr.data.reading import read_split

    draw_split(folder / "train", case)
    images, kept = case["images"], folder / "kept"
    os.environ["RFDETR_CACHE"] = str(kept)

    def work() -> object:
        if case["work"] == "first reading":
            shutil.rmtree(kept, ignore_errors=True)
        if case["work"] in ("first reading", "later reading"):
            return read_split(folder, "train", masks=case.get("masks", False))
        if case["work"] == "plan":
            return sum(1 for _ in EpochBatches(images, 4, 4, 0, rank=0, world_size=1, scale_of_step=lambda _: 384))
        dataset = TrainingDataset(split, "default", seed=0)
        return [dataset[SampleRequest(index % images, 0, 384)] for index in range(32)]

    split = read_split(folder, "train", masks=case.get("masks", False)) if case["work"] == "items" else None
    return 32 if case["work"] == "items" else images, work


def draw_split(folder: Path, case: Case) -> None:
    """The same picture everywhere, which is small; objects are rectangles."""
    from PIL import Image

    folder.mkdir()
    Image.new("RGB", (WIDTH, HEIGHT)).save(folder / "0.png")
    picture = (folder / "0.png").read_bytes()
    for index in range(case["images"]):
        (folder / f"{index}.png").write_bytes(picture)
    rng = np.random.default_rng(0)
    with (folder / "_annotations.coco.json").open("w") as file:
        images = [{"id": i, "file_name": f"{i}.png", "width": WIDTH, "height": HEIGHT} for i in range(case["images"])]
        categories = [{"id": i + 1, "name": f"kind {i}", "supercategory": "none"} for i in range(case["classes"])]
        file.write(json.dumps({"images": images, "categories": categories})[:-1] + ', "annotations": [')
        for index in range(case["images"] * case["objects"]):
            x, y, w, h = (rng.uniform(0.01, 0.5, 4) * [WIDTH, HEIGHT, WIDTH, HEIGHT]).round(2).tolist()
            row = {"id": index + 1, "image_id": index // case["objects"], "bbox": [x, y, w, h], "area": w * h}
            row |= {"category_id": int(rng.integers(case["classes"])) + 1, "iscrowd": 0}
            if case.get("masks"):
                row["segmentation"] = [[x, y, x + w, y, x + w, y + h, x, y + h]]
            file.write(", " * (index > 0) + json.dumps(row))
        file.write("]}")


def evaluation(case: Case, folder: Path) -> Work:
    """Scores of detections, as in `evaluation.py`: with masks 100 of them in an image, else 300."""
    from evaluation import Clock, draw, ours

    masks = case.get("masks", False)
    draw(folder, case["images"], 100 if masks else 300, case["classes"], masks, objects=case["objects"])
    evaluate = ours(folder, masks)
    return case["images"], lambda: evaluate(case["images"], Clock())


def prediction(case: Case, _: Path) -> Work:
    """`predict` of arrays, eight times the batch; with masks of seg-nano."""
    from rfdetr import RFDETRNano, RFDETRSegNano

    size = RFDETRSegNano if case.get("masks") else RFDETRNano
    model = size(pretrain_weights=None, device="cpu", num_classes=case["classes"], resolution=case["resolution"])
    pictures = [np.zeros((case["height"], case["height"] * 4 // 3, 3), np.uint8)] * (2 * case["batch"])
    return len(pictures), lambda: model.predict(pictures, threshold=0.5, batch_size=case["batch"])


PARTS: dict[str, Callable[[Case, Path], Work]] = {
    "step": step,
    "losses": losses,
    "data": data,
    "evaluation": evaluation,
    "prediction": prediction,
}
MASKS = {"masks": True}
# Part -> the first lines of its tables, and what is varied in each.
TABLES: dict[str, list[tuple[Case, dict[str, list[Any]]]]] = {
    "step": [
        (
            {"batch": 2, "resolution": 384, "objects": 30, "classes": 80},
            {"batch": [1, 4], "resolution": [192, 576], "objects": [1, 300], "classes": [1, 1000]},
        ),
        (
            MASKS | {"batch": 1, "resolution": 312, "objects": 30, "classes": 80},
            {"batch": [2], "resolution": [216], "objects": [1, 300]},
        ),
    ],
    "losses": [
        ({"batch": 2, "objects": 30, "classes": 80}, {"batch": [1, 8], "objects": [1, 300], "classes": [1, 1000]}),
        (MASKS | {"batch": 1, "objects": 30, "classes": 80}, {"batch": [2], "objects": [1, 300]}),
    ],
    "data": [
        (
            {"work": "first reading", "images": 1000, "objects": 30, "classes": 80},
            {"images": [100, 10_000], "objects": [1, 300], "classes": [1, 1000], "masks": [True]},
        ),
        ({"work": "later reading", "images": 1000, "objects": 30, "classes": 80}, {"images": [10_000]}),
        ({"work": "plan", "images": 1000, "objects": 1, "classes": 1}, {"images": [100, 10_000]}),
        ({"work": "items", "images": 32, "objects": 30, "classes": 80}, {"objects": [1, 300], "masks": [True]}),
        ({"work": "items", "images": 32, "objects": 300, "classes": 80} | MASKS, {}),
    ],
    "evaluation": [
        (
            {"images": 1000, "objects": 7, "classes": 80},
            {"images": [100, 5000], "objects": [1, 30, 300], "classes": [1, 1000]},
        ),
        (MASKS | {"images": 100, "objects": 7, "classes": 80}, {"images": [20, 300], "objects": [1, 30, 300]}),
    ],
    "prediction": [
        (
            {"batch": 4, "resolution": 384, "height": 480, "classes": 80},
            {"batch": [1, 16], "resolution": [192, 576], "height": [240, 1920], "classes": [1, 1000]},
        ),
        (MASKS | {"batch": 4, "resolution": 312, "height": 480, "classes": 80}, {"batch": [1], "height": [240, 1920]}),
    ],
}


def measure(part: str, case: Case) -> None:
    """The process of one line."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        images, work = PARTS[part](case, Path(folder))
        gc.collect()
        before = resident_mib("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")
        work()
        peak = resident_mib("VmHWM") - before
        seconds, rounds = 0.0, 0
        while rounds < 1 or (seconds < 1 and rounds < 20):
            started = time.process_time()
            work()
            seconds, rounds = seconds + time.process_time() - started, rounds + 1
    print(json.dumps([1000 * seconds / rounds / images, peak]))


def resident_mib(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field))


def measured(part: str, case: Case) -> tuple[float, float]:
    command = [sys.executable, __file__, "--case", part, json.dumps(case)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{part} {case}: {done.stderr[-2000:]}")
    milliseconds, peak = json.loads(done.stdout.splitlines()[-1])
    return milliseconds, peak


def table(part: str, first: Case, varied: dict[str, list[Any]]) -> None:
    print(f"\n{part}: {', '.join(f'{value} {name}' for name, value in first.items())}\n")
    print("| what differs | ms per image | of the first | MiB at most |\n| --- | ---: | ---: | ---: |")
    cases = [("nothing", first)]
    cases += [(f"{value} {name}", first | {name: value}) for name, values in varied.items() for value in values]
    base = math.nan
    for name, case in cases:
        milliseconds, peak = measured(part, case)
        base = milliseconds if name == "nothing" else base
        print(f"| {name} | {milliseconds:.3g} | {milliseconds / base:.2f} | {peak:.0f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=list(PARTS))
    parser.add_argument("--large", action="store_true", help="also 100,000 images in the set; takes minutes")
    parser.add_argument("--case", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.case:
        with contextlib.suppress(KeyboardInterrupt):
            measure(args.case[0], json.loads(args.case[1]))
        return
    for part in args.parts:
        for first, varied in TABLES[part]:
            more = (
                {"images": [*varied["images"], 100_000]} if args.large and "images" in varied and part == "data" else {}
            )
            table(part, first, varied | more)


if __name__ == "__main__":
    main()
