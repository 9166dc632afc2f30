"""Images per second and core of the training loader, beside another loader of the same work.

    OMP_NUM_THREADS=1 python benchmarks/loader.py --other OTHER_VENV/bin/python

Both decode the same JPEG files with their objects, flip and crop them by the default recipe, resize them and make
normalised batches of 8, in one process that is bound to one core. `cached` is ours from the second epoch on with
`cache="ram"`; the other has no such thing, so all ratios are to its one way. `--other` is a Python with the PyPI
package rfdetr, used through its public `RFDETRDataModule`. `--data` names folders in COCO's layout, instead of drawn
pictures.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image
from sides import Side, by_turns, median_ratio, rounds_asked_for, spread, tell

SIZES_WH = {"2000 x 1500": (2000, 1500), "640 x 480": (640, 480)}
IMAGES = {"2000 x 1500": 64, "640 x 480": 160}
OBJECTS = 8
BATCH_SIZE = 8
CORE = 0
SIDES = ("ours", "bytes", "cached", "other")
"""Batches as numbers; as bytes, of which a GPU makes the numbers; as numbers, of pictures that are kept."""


def draw_photographs(folder: Path, size_wh: tuple[int, int], count: int) -> None:
    """JPEGs about as hard to decode as photographs (2 bits per pixel), a COCO file beside them."""
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


def ours(dataset: Path, resolution: int, masks: bool, side: str) -> Callable[[], Iterator[int]]:
    import torch

    from rfdetr.data.batches import EpochBatches
    from rfdetr.data.collation import on_device
    from rfdetr.data.loading import training_loader
    from rfdetr.data.pixel_cache import cached
    from rfdetr.data.reading import read_split

    split = read_split(dataset, "train", masks=masks)
    at_least = max(600, resolution)
    if side == "cached":
        split = replace(split, pictures=cached(split.pictures, split.sizes_hw, at_least, "ram"))
    batches = EpochBatches(len(split), BATCH_SIZE, 1, seed=0, rank=0, world_size=1, scale_of_step=lambda _: resolution)
    loader = training_loader(split, batches, augment="default", num_workers=0, at_least=at_least)

    def images() -> Iterator[int]:
        for (batch,) in loader:
            yield len((batch if side == "bytes" else on_device(batch, torch.device("cpu"))).images)
        batches.epoch += 1

    return images


def other(dataset: Path, resolution: int, masks: bool) -> Callable[[], Iterator[int]]:
    from rfdetr.config import RFDETRNanoConfig, RFDETRSegNanoConfig, SegmentationTrainConfig, TrainConfig
    from rfdetr.training import RFDETRDataModule

    make_model = RFDETRSegNanoConfig if masks else RFDETRNanoConfig
    make_config = SegmentationTrainConfig if masks else TrainConfig
    model = make_model(resolution=resolution, pretrain_weights=None, device="cpu", num_classes=3)
    config = make_config(
        dataset_dir=str(dataset),
        output_dir=tempfile.mkdtemp(),
        batch_size=BATCH_SIZE,
        grad_accum_steps=1,
        num_workers=0,
        multi_scale=False,
        expanded_scales=False,
        tensorboard=False,
    )
    module = RFDETRDataModule(model, config)
    module.setup("fit")
    loader = module.train_dataloader()
    return lambda: (len(targets) for _, targets in loader)


def serve(side: str, dataset: Path, resolution: int, masks: bool) -> None:
    """An epoch for every line that comes in: images per second of the core's time, which other programs cannot take."""
    import torch

    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {CORE})
    images = other(dataset, resolution, masks) if side == "other" else ours(dataset, resolution, masks, side)
    for _ in rounds_asked_for():
        started = time.process_time()
        number = sum(images())
        tell(number / (time.process_time() - started))


def compare(pythons: dict[str, str], dataset: Path, name: str, resolution: int, masks: bool, rounds: int) -> None:
    sides = {side: Side(python, __file__, side, dataset, resolution, int(masks)) for side, python in pythons.items()}
    rates = by_turns(sides, rounds)
    for side in sides.values():
        side.close()
    for side, found in rates.items():
        ratio = f"{median_ratio(found, rates['other']):.2f}" if "other" in rates else ""
        print(f"| {name} | {resolution} | {side} | {spread(found, 1)} | {ratio} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--other", help="a Python with the other package")
    parser.add_argument("--data", type=Path, nargs="*", default=[], help="folders in COCO's layout")
    parser.add_argument("--masks", action="store_true", help="of --data, with the objects' masks")
    parser.add_argument("--resolutions", type=int, nargs="*", default=[384, 576])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--serve", nargs=4, metavar=("SIDE", "DATASET", "RESOLUTION", "MASKS"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        side, dataset, resolution, masks = given.serve
        serve(side, Path(dataset), int(resolution), masks == "1")
        return
    pythons = dict.fromkeys(SIDES[:-1], sys.executable) | ({"other": given.other} if given.other else {})
    print("| pictures | resolution | loader | images/s | ratio |\n| --- | ---: | --- | ---: | ---: |", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        datasets = {path.name: path for path in given.data}
        for name, size_wh in () if given.data else SIZES_WH.items():
            datasets[name] = Path(folder) / name.replace(" ", "")
            draw_photographs(datasets[name] / "train", size_wh, IMAGES[name])
            draw_photographs(datasets[name] / "valid", size_wh, 1)
        for name, dataset in datasets.items():
            for resolution in given.resolutions:
                compare(pythons, dataset, name, resolution, given.masks, given.rounds)


if __name__ == "__main__":
    main()
