"""Does evaluating masks take more memory for more images?

    OMP_NUM_THREADS=1 python benchmarks/mask_memory.py

A segmentation model with random weights, whose masks are noise and their run-length code long, is evaluated on drawn
images of 640 x 480, and its predictions are written to a file. Every number of images is a process of its own.
Linux: it reads /proc/self/status.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw

from rfdetr.config.presets import preset
from rfdetr.data.reading import read_split
from rfdetr.evaluation.evaluate import run_all
from rfdetr.evaluation.results_file import ResultsFile
from rfdetr.models.detector import Detector

WIDTH, HEIGHT = 640, 480
CLASSES = ("cat", "dog", "owl")
WARM_UP = 20  # images until all that does not depend on their number has been loaded and allocated


def draw(folder: Path, num_images: int) -> None:
    """Up to ten polygons on noise in every image."""
    rng = np.random.default_rng(0)
    (folder / "test").mkdir(parents=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id in range(num_images):
        picture = Image.fromarray(rng.integers(0, 80, (HEIGHT, WIDTH, 3), dtype=np.uint8))
        for _ in range(rng.integers(1, 11)):
            angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)
            center, radius = rng.uniform((80, 80), (WIDTH - 80, HEIGHT - 80)), rng.uniform(10, 80)
            ring = center + radius * np.column_stack([np.cos(angles), np.sin(angles)]) * rng.uniform(0.7, 1, (40, 1))
            ImageDraw.Draw(picture).polygon(ring.ravel().tolist(), fill=tuple(rng.integers(100, 255, 3).tolist()))
            (x, y), (right, bottom) = ring.min(axis=0), ring.max(axis=0)
            annotations.append(
                {
                    "id": len(annotations),
                    "image_id": image_id,
                    "category_id": int(rng.integers(len(CLASSES))),
                    "bbox": [x, y, right - x, bottom - y],
                    "area": (right - x) * (bottom - y) * 0.6,
                    "iscrowd": 0,
                    "segmentation": [ring.ravel().tolist()],
                }
            )
        picture.save(folder / "test" / f"{image_id}.jpg")
        images.append({"id": image_id, "file_name": f"{image_id}.jpg", "width": WIDTH, "height": HEIGHT})
    categories = [{"id": index, "name": name} for index, name in enumerate(CLASSES)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "test" / "_annotations.coco.json").write_text(json.dumps(content))


def peak_mib() -> float:
    """Highest resident memory of this process so far."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("no VmHWM in /proc/self/status")


def work(folder: Path, size: str, batch_size: int) -> None:
    """One measurement; the process ends here."""
    annotations = read_split(folder, "test", masks=True)
    detector = Detector(preset(size).replace(num_classes=len(CLASSES))).eval()
    peaks: list[float] = []
    predictions = folder / "predictions.json"
    start = time.perf_counter()
    with ResultsFile.open(predictions, annotations) as results:
        evaluators = run_all(
            {"": detector},
            annotations,
            batch_size=batch_size,
            max_dets=500,
            num_workers=0,
            device=torch.device("cpu"),
            dtype=None,
            observe=lambda *_: peaks.append(peak_mib()),
            results=results,
        )
        evaluators[""].compute()
        results.save()
    seconds = (time.perf_counter() - start) / len(annotations)
    figures = {
        "peak_mib": peak_mib(),
        "growth_mib": peak_mib() - peaks[WARM_UP // batch_size],
        "seconds": seconds,
        "file_mib": predictions.stat().st_size / 2**20,
    }
    print(json.dumps(figures))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[50, 500])
    parser.add_argument("--size", default="seg-nano")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--work", type=Path, metavar="FOLDER", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        work(args.work, args.size, args.batch_size)
        return
    print("| images | peak MiB | growth after the first 20, MiB | predictions file, MiB | seconds per image |")
    print("| ---: | ---: | ---: | ---: | ---: |")
    for num_images in args.images:
        with tempfile.TemporaryDirectory() as folder:
            draw(Path(folder), num_images)
            command = [sys.executable, __file__, "--work", folder, "--size", args.size]
            command += ["--batch-size", str(args.batch_size)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise RuntimeError(done.stderr[-2000:])
            figures = json.loads(done.stdout.splitlines()[-1])
        columns = ("peak_mib", "growth_mib", "file_mib")
        shown = " | ".join(f"{figures[name]:.0f}" for name in columns)
        print(f"| {num_images} | {shown} | {figures['seconds']:.2f} |", flush=True)


if __name__ == "__main__":
    main()
