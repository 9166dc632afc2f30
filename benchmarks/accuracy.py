"""Minutes to a given accuracy, beside the PyPI package of the same name: the same recipe from scratch, seed by seed.

    python benchmarks/accuracy.py --other OTHER_VENV/bin/python --data ../shared/data/bccd

Each side runs `train()` in a process of its own, one after the other, from the same random weights (a checkpoint that
both open). The clock starts with the process; the accuracy of an epoch counts from when its row is in metrics.csv.
The rate is constant, so that more epochs go on where fewer end: ours gets half as many again, in case it needs them
for the other's final accuracy. All else is compared after the same number of epochs.

`--same-batches` is another question: whether both learn the same. Then the other gets the very pictures and boxes that
ours sees, in their order; what still differs is rounding, which grows from step to step. The mean loss of each epoch is
told, too. Times are not compared then, as the other loads its own pictures besides.
"""

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rfdetr.config.model import ModelConfig

METRIC = "val/ema_mAP_50_95"
RECIPE: dict[str, Any] = {
    "epochs": 12,
    "batch_size": 4,
    "grad_accum_steps": 1,
    "lr": 2e-4,
    "lr_encoder": 2e-4,
    "lr_vit_layer_decay": 1.0,
    "lr_component_decay": 1.0,
    "multi_scale": False,
    "tensorboard": False,
    "num_workers": 2,
}
MORE = 1.5
"""Times the epochs of the other, for ours."""
OURS: dict[str, dict[str, Any]] = {
    "ours": {"device": "cpu", "sample_interval": 0, "compute_val_loss": False, "lr_drop": 1000},
}
OURS["ours in float32"] = OURS["ours"] | {"precision": "32"}
LEARNED = 0.02
"""Less than this accuracy nobody wants to reach: before they learn, both have some."""


def serve(side: str, settings: dict[str, Any]) -> None:
    import torch

    torch.set_num_threads(settings.pop("threads"))
    import rfdetr

    shape, run = settings["shape"], settings["run"]
    model = rfdetr.RFDETRNano(device="cpu", **shape)
    if side == "other" and settings["batches"]:
        replace_batches(settings["batches"])
        run |= {"pack_targets": False}
    model.train(**run, **OURS.get(side, {}))


def record_batches(model: "ModelConfig", run: dict[str, Any], file: Path) -> None:
    """What ours sees in a run: of each step the normalised images, and the boxes and classes of each."""
    import torch

    from rfdetr.config.runs import TrainConfig
    from rfdetr.data.collation import on_device
    from rfdetr.data.reading import read_split
    from rfdetr.training.setup import epoch_batches, open_loader

    config, device = TrainConfig(**run), torch.device("cpu")
    split = read_split(run["dataset_dir"], "train")
    order = epoch_batches(split, model, config, run["seed"])
    loader = open_loader(split, order, model, config, device)
    epochs = []
    for order.epoch in range(config.epochs):
        batches = [on_device(raw, device) for (raw,) in loader]
        epochs.append([(each.images, [(own["boxes"], own["labels"]) for own in each.targets]) for each in batches])
    torch.save(epochs, file)


def replace_batches(file: str) -> None:
    """Train the other package on recorded batches: its own ones lend the form."""
    import torch

    from rfdetr.training import RFDETRDataModule

    epochs = iter(torch.load(file))
    own_loader = RFDETRDataModule.train_dataloader

    class Recorded:
        def __init__(self, loader: Any) -> None:
            self.loader = loader

        def __len__(self) -> int:
            return len(self.loader)

        def __iter__(self) -> Iterator[Any]:
            for (samples, targets), (images, objects) in zip(self.loader, next(epochs), strict=True):
                samples.tensors = images
                for target, (boxes, labels) in zip(targets, objects, strict=True):
                    target |= {"boxes": boxes, "labels": labels.to(target["labels"].dtype)}
                yield samples, targets

    RFDETRDataModule.train_dataloader = lambda module: Recorded(own_loader(module))


def column(file: Path, name: str) -> list[float]:
    """Of each epoch, as far as they are known."""
    if not file.exists():
        return []
    with file.open(newline="") as lines:
        return [float(row[name]) for row in csv.DictReader(lines) if row.get(name)]


def follow(python: str, side: str, settings: dict[str, Any], log: Path) -> list[tuple[float, float]]:
    """Seconds since the start, and accuracy, of each epoch."""
    started, seen = time.perf_counter(), []
    metrics = Path(settings["run"]["output_dir"]) / "metrics.csv"
    with log.open("w") as lines:
        process = subprocess.Popen(
            [python, __file__, "--serve", side, json.dumps(settings)], stdout=lines, stderr=lines, env=os.environ
        )
        while process.poll() is None:
            time.sleep(0.2)
            seen += [(time.perf_counter() - started, found) for found in column(metrics, METRIC)[len(seen) :]]
    seen += [(time.perf_counter() - started, found) for found in column(metrics, METRIC)[len(seen) :]]
    if process.returncode:
        raise SystemExit(f"{side}: ended with {process.returncode}\n{log.read_text()[-3000:]}")
    return seen


def seconds_to(accuracy: float, seen: list[tuple[float, float]]) -> float:
    return next((seconds for seconds, found in seen if found >= accuracy), float("inf"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--other", help="a Python with the other package")
    parser.add_argument("--data", type=Path, help="a dataset in Roboflow's COCO layout")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--resolution", type=int, default=192)
    parser.add_argument("--num-queries", type=int, default=100)
    parser.add_argument("--epochs", type=int, default=RECIPE["epochs"])
    parser.add_argument("--same-batches", action="store_true", help="the other learns from the batches of ours")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--sides", nargs="+", default=["other", *OURS])
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        side, settings = given.serve
        serve(side, json.loads(settings))
        return
    import rfdetr

    shape = {"resolution": given.resolution, "num_queries": given.num_queries, "num_select": given.num_queries}
    print(f"| seed | side | seconds | mAP after {given.epochs} | seconds to the other's | share |")
    print("| ---: | --- | ---: | ---: | ---: | ---: |")
    final: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        for seed in given.seeds:
            weights = Path(temporary) / f"{seed}.pth"
            model = rfdetr.RFDETRNano(pretrain_weights=None, device="cpu", num_classes=3, init_seed=seed, **shape)
            model.save(weights)
            run = RECIPE | {"dataset_dir": str(given.data), "seed": seed, "epochs": given.epochs}
            batches = Path(temporary) / f"{seed}.pt" if given.same_batches else None
            if batches:
                record_batches(model.detector.config, run, batches)
            goal, whole = float("nan"), float("nan")
            for side in given.sides:
                epochs = given.epochs if side == "other" or batches else round(MORE * given.epochs)
                folder = Path(temporary) / f"{side}-{seed}"
                settings = {
                    "shape": shape | {"pretrain_weights": str(weights), "num_classes": 3},
                    "run": run | {"epochs": epochs, "output_dir": str(folder)},
                    "batches": batches and str(batches),
                    "threads": given.threads,
                }
                python = given.other if side == "other" else sys.executable
                seen = follow(python, side, settings, Path(temporary) / "log.txt")
                seconds, reached = seen[given.epochs - 1]
                if side == "other":
                    whole, goal = seconds, reached
                final.setdefault(side, []).append(reached)
                compared = "- | -"
                if goal >= LEARNED and not batches:
                    needed = seconds_to(goal, seen)
                    compared = f"{needed:.0f} | {needed / whole:.2f}"
                print(f"| {seed} | {side} | {seconds:.0f} | {reached:.4f} | {compared} |", flush=True)
                losses = column(folder / "metrics.csv", "train/loss")
                epochs_told = (f"{s:.0f} s: loss {x:.3f}, {m:.3f}" for (s, m), x in zip(seen, losses, strict=True))
                print("  " + "; ".join(epochs_told), file=sys.stderr, flush=True)
    for side, found in final.items():
        mean, low, high = (f"{number:.4f}" for number in (statistics.mean(found), min(found), max(found)))
        print(f"{side}: mAP after {given.epochs} epochs {mean}, from {low} to {high}")


if __name__ == "__main__":
    main()
