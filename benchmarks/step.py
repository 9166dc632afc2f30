"""Seconds per training step on the CPU, beside the PyPI package of the same name: interleaved, several rounds.

    python benchmarks/step.py --other OTHER_VENV/bin/python

Both run `train()` on the same drawn images from the same weights (a checkpoint that both open), with the same settings
and threads: loading, forward and backward pass, losses, clipping, optimiser and average all count. A process stops
after a few steps until it is asked for more.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sides import Side, by_turns, median_ratio, rounds_asked_for, spread, tell

STEPS = 3  # per round
IMAGES = 160
# Class, resolution, images per step.
CASES = {
    "nano": ("RFDETRNano", 384, 2),
    "nano-4": ("RFDETRNano", 384, 4),
    "small": ("RFDETRSmall", 512, 2),
    "seg-nano": ("RFDETRSegNano", 312, 2),
}


def clock() -> Callable[..., None]:
    """To be called after each step: tells the mean seconds of `STEPS` of them, then waits for a line."""
    rounds = rounds_asked_for()
    started, done = 0.0, -1  # the first step makes what later ones use

    def after_step(*_: Any) -> None:
        nonlocal started, done
        done += 1
        if done == 0:
            next(rounds)
        elif done % STEPS == 0:
            tell((time.perf_counter() - started) / STEPS)
            if next(rounds, "no more") == "no more":
                raise SystemExit
        if done % STEPS == 0:
            started = time.perf_counter()

    return after_step


def serve(side: str, case: str, folder: Path, threads: int) -> None:
    """Train until nobody asks for more."""
    import torch

    torch.set_num_threads(threads)
    import rfdetr

    name, resolution, batch_size = CASES[case]
    settings: dict[str, Any] = {
        "dataset_dir": folder / "shapes",
        "output_dir": folder / f"{side}-{case}",
        "epochs": 2,
        "batch_size": batch_size,
        "grad_accum_steps": 1,
        "multi_scale": False,
        "tensorboard": False,
        "num_workers": 1,
        "seed": 0,
    }
    if side == "other":
        from torch.optim.optimizer import register_optimizer_step_post_hook

        register_optimizer_step_post_hook(clock())
    else:
        count_ours(clock())
        settings |= {"device": "cpu", "precision": "32" if side == "ours-32" else "auto"}
    model = getattr(rfdetr, name)(
        pretrain_weights=str(folder / f"{name}.pth"), device="cpu", resolution=resolution, num_classes=4
    )
    model.train(**settings)


def count_ours(after_step: Callable[..., None]) -> None:
    from rfdetr.training.step import TrainingStep

    step = TrainingStep.__call__

    def counted(self: TrainingStep, *arguments: Any) -> Any:
        granted = step(self, *arguments)
        after_step()
        return granted

    TrainingStep.__call__ = counted  # type: ignore[method-assign]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--other", help="a Python with the other package")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--serve", nargs=4, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        side, case, folder, threads = given.serve
        serve(side, case, Path(folder), int(threads))
        return
    import rfdetr
    from rfdetr.data.synthetic import draw_dataset

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        draw_dataset(folder / "shapes", IMAGES, seed=0)
        for name in {CASES[case][0] for case in given.cases}:
            getattr(rfdetr, name)(pretrain_weights=None, num_classes=4, device="cpu").save(folder / f"{name}.pth")
        pythons = {"ours": sys.executable, "ours-32": sys.executable}
        pythons |= {"other": given.other} if given.other else {}
        print("| case | pixels | batch | side | seconds per step | ratio |\n| --- | ---: | ---: | --- | ---: | ---: |")
        for case in given.cases:
            _, resolution, batch_size = CASES[case]
            sides = {
                side: Side(python, __file__, side, case, folder, given.threads, log=folder / f"{side}.log")
                for side, python in pythons.items()
            }
            found = by_turns(sides, given.rounds)
            for side, seconds in found.items():
                ratio = f"{median_ratio(found['other'], seconds):.2f}" if given.other else ""
                print(f"| {case} | {resolution} | {batch_size} | {side} | {spread(seconds)} | {ratio} |", flush=True)
            for each in sides.values():
                each.process.kill()


if __name__ == "__main__":
    main()
