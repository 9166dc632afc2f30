"""Seconds until something happens, from the start of a process, beside the PyPI package of the same name: by turns.

    python benchmarks/start.py --other OTHER_VENV/bin/python

Importing, the help of the command line, and `train()` up to the end of its first step: Nano at 384 with random weights,
2 images per step, drawn images. Every measurement is a process of its own; a round before the first fills the file
cache.
"""

import argparse
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from sides import RESULT, median_ratio, spread, tell

IMAGES = 40


def first_step(side: str, dataset: Path, output: Path) -> None:
    """Train, and tell when the first step is done. Ours is asked for no sheet of samples, which the other has not."""
    import rfdetr

    model = rfdetr.RFDETRNano(pretrain_weights=None, device="cpu", num_classes=4, resolution=384)
    from torch.optim.optimizer import register_optimizer_step_post_hook

    register_optimizer_step_post_hook(lambda *_: tell(time.time()))
    settings: dict[str, Any] = {"epochs": 1, "batch_size": 2, "grad_accum_steps": 1, "num_workers": 2, "seed": 0}
    settings |= {"sample_interval": 0} if side == "ours" else {}
    model.train(dataset_dir=dataset, output_dir=output, tensorboard=False, multi_scale=False, **settings)


def seconds_to_end(command: list[str], environment: dict[str, str]) -> float:
    """Not a number if it fails, as the command line of a package does that is installed without what it needs."""
    started = time.time()
    ended = subprocess.run(command, check=False, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return math.nan if ended.returncode else time.time() - started


def seconds_to_result(command: list[str], environment: dict[str, str]) -> float:
    """Until the process tells the time; then it is ended, and its loader processes with it."""
    started = time.time()
    with subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout
        told = next((line for line in process.stdout if line.startswith(RESULT)), None)
        os.killpg(process.pid, 9)
        if told is None:
            raise SystemExit(f"{command} ended")
    return float(told.removeprefix(RESULT)) - started


def measure(side: str, python: str, what: str, folder: Path, environment: dict[str, str]) -> float:
    if what == "import":
        return seconds_to_end([python, "-c", "import rfdetr"], environment)
    if what == "help":
        return seconds_to_end([str(Path(python).with_name("rfdetr")), "--help"], environment)
    with tempfile.TemporaryDirectory(dir=folder) as output:
        return seconds_to_result([python, __file__, "--serve", side, str(folder / "shapes"), output], environment)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--other", help="a Python with the other package")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--serve", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        side, *folders = given.serve
        first_step(side, *map(Path, folders))
        return
    from rfdetr.data.synthetic import draw_dataset

    environment = {**os.environ, "OMP_NUM_THREADS": str(given.threads)}
    pythons = {"ours": sys.executable} | ({"other": given.other} if given.other else {})
    print("| until | side | seconds | ratio |\n| --- | --- | ---: | ---: |")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        draw_dataset(folder / "shapes", IMAGES, seed=0)
        for what in ("import", "help", "first step"):
            found: dict[str, list[float]] = {side: [] for side in pythons}
            for number in range(given.rounds + 1):
                for side, python in pythons.items():
                    seconds = measure(side, python, what, folder, environment)
                    found[side] += [seconds] if number else []
            for side, seconds_of_rounds in found.items():
                ratio = f"{median_ratio(found['other'], seconds_of_rounds):.1f}" if given.other else ""
                print(f"| {what} | {side} | {spread(seconds_of_rounds)} | {ratio} |", flush=True)


if __name__ == "__main__":
    main()
