"""Images per second of the training loader, beside another loader of the same work: interleaved, several rounds.

    python benchmarks/loader.py --other OTHER_VENV/bin/python

Both decode the same JPEG files with boxes, flip and crop them by the default recipe, resize them to one resolution and
make batches, in as many processes. Ours hands out bytes, which become numbers on the device; that is counted, too, as
done on the CPU by the process that trains. `--other` is a Python with the PyPI package rfdetr, used through its public
`RFDETRDataModule`.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIZES_WH = {"2000 x 1500": (2000, 1500), "640 x 480": (640, 480)}
IMAGES = {"2000 x 1500": 64, "640 x 480": 160}
OBJECTS = 8
BATCH_SIZE = 8
RESULT = "result:"
"""Begins the lines that are meant for the other process."""


def draw_photographs(folder: Path, size_wh: tuple[int, int], count: int) -> None:
    """JPEGs about as hard to decode as photographs (3 bits per pixel), a COCO file beside them."""
    width, height = size_wh
    images, annotations = [], []
    folder.mkdir(parents=True)
    for number in range(count):
        rng = np.random.default_rng(number)
        coarse = Image.fromarray(rng.integers(0, 256, (height // 16, width // 16, 3), dtype=np.uint8))
        pixels = np.asarray(coarse.resize(size_wh, Image.Resampling.BICUBIC)) // 2 + rng.integers(
            0, 24, (height, width, 3), dtype=np.uint8
        )
        Image.fromarray(pixels).save(folder / f"{number}.jpg", quality=85)
        images.append({"id": number, "file_name": f"{number}.jpg", "width": width, "height": height})
        for _ in range(OBJECTS):
            x, y, w, h = (rng.uniform(0.01, 0.5, 4) * [width, height, width, height]).tolist()
            box = {"bbox": [x, y, w, h], "area": w * h, "iscrowd": 0, "category_id": int(rng.integers(1, 4))}
            annotations.append({"id": len(annotations) + 1, "image_id": number, **box})
    categories = [{"id": number, "name": f"kind {number}", "supercategory": "none"} for number in range(1, 4)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "_annotations.coco.json").write_text(json.dumps(content))


def ours(dataset: Path, resolution: int, num_workers: int, is_normalized: bool) -> Callable[[], Iterator[int]]:
    import torch

    from rfdetr.data.batches import EpochBatches
    from rfdetr.data.collation import on_device
    from rfdetr.data.loading import training_loader
    from rfdetr.data.reading import read_split

    torch.set_num_threads(1)
    split = read_split(dataset, "train")
    batches = EpochBatches(len(split), BATCH_SIZE, 1, seed=0, rank=0, world_size=1, scale_of_step=lambda _: resolution)
    loader = training_loader(split, batches, augment="default", num_workers=num_workers, at_least=max(600, resolution))

    def images() -> Iterator[int]:
        for (batch,) in loader:
            yield len(on_device(batch, torch.device("cpu")).images if is_normalized else batch.images)
        batches.epoch += 1

    return images


def other(dataset: Path, resolution: int, num_workers: int) -> Callable[[], Iterator[int]]:
    import torch

    from rfdetr.config import RFDETRMediumConfig, TrainConfig
    from rfdetr.training import RFDETRDataModule

    torch.set_num_threads(1)
    model = RFDETRMediumConfig(resolution=resolution, pretrain_weights=None, device="cpu", num_classes=3)
    config = TrainConfig(
        dataset_dir=str(dataset),
        output_dir=tempfile.mkdtemp(),
        batch_size=BATCH_SIZE,
        grad_accum_steps=1,
        num_workers=num_workers,
        multi_scale=False,
        expanded_scales=False,
        tensorboard=False,
    )
    module = RFDETRDataModule(model, config)
    module.setup("fit")
    loader = module.train_dataloader()
    return lambda: (len(targets) for _, targets in loader)


def serve(side: str, dataset: Path, resolution: int, num_workers: int) -> None:
    """An epoch for every line that comes in; says images and seconds, the first batch's wait left out."""
    if side == "other":
        images = other(dataset, resolution, num_workers)
    else:
        images = ours(dataset, resolution, num_workers, is_normalized=side == "ours, normalised")
    for _ in sys.stdin:
        counts = images()
        next(counts)  # workers that start, or begin the epoch
        started, number = time.perf_counter(), sum(counts)
        print(RESULT, json.dumps([number, time.perf_counter() - started]), flush=True)


class Side:
    """A loader in a process of its own."""

    def __init__(self, python: str, *arguments: Any) -> None:
        command = [python, __file__, "--serve", *map(str, arguments)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def images_per_second(self) -> float:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        while not (line := self.process.stdout.readline()).startswith(RESULT):
            if not line:
                raise SystemExit(f"{self.process.args} ended")
        number, seconds = json.loads(line.removeprefix(RESULT))
        return float(number / seconds)

    def close(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--other", help="a Python with the other package")
    parser.add_argument("--resolution", type=int, default=576)
    parser.add_argument("--num-workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--serve", nargs=4, metavar=("SIDE", "DATASET", "RESOLUTION", "WORKERS"), help=argparse.SUPPRESS
    )
    given = parser.parse_args()
    if given.serve:
        side, dataset, resolution, workers = given.serve
        serve(side, Path(dataset), int(resolution), int(workers))
        return
    pythons = {"ours": sys.executable, "ours, normalised": sys.executable}
    pythons |= {"other": given.other} if given.other else {}
    with tempfile.TemporaryDirectory() as folder:
        for name, size_wh in SIZES_WH.items():
            dataset = Path(folder) / name.replace(" ", "")
            draw_photographs(dataset / "train", size_wh, IMAGES[name])
            draw_photographs(dataset / "valid", size_wh, 1)
            sides = {
                side: Side(python, side, dataset, given.resolution, given.num_workers)
                for side, python in pythons.items()
            }
            for side in sides.values():  # one epoch to warm up
                side.images_per_second()
            rates: dict[str, list[float]] = {side: [] for side in sides}
            for _ in range(given.rounds):
                for label, side in sides.items():
                    rates[label].append(side.images_per_second())
            for side in sides.values():
                side.close()
            for label, found in rates.items():
                median = statistics.median(found)
                ratio = (
                    statistics.median(a / b for a, b in zip(found, rates["other"], strict=True)) if given.other else 1
                )
                spread = f"{min(found):.1f} to {max(found):.1f}"
                print(f"{name:12}  {label:17} {median:7.1f} images/s ({spread}), {ratio:.2f} x the other's", flush=True)


if __name__ == "__main__":
    main()
