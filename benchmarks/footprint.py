"""Memory and disk that a training run takes, and how long it waits for its files, beside the other package's.

    python benchmarks/footprint.py --other OTHER_VENV/bin/python

`train()` of both on the same drawn images: Nano at 384 with random weights, 2 images per step, 2 epochs with their
evaluations, one loader process. Memory is the largest sum of the proportional set sizes (PSS: what processes share
counts once) of the process and all below it, looked at again and again; Linux alone tells it. The wait is the longest
call of what saves, in the thread that trains: `torch.save` of the other package, which does more around it that is not
counted; all of `Checkpoints.save` of ours. At the end ours waits for what is still being written: a column of its own.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
from sides import RESULT, tell

IMAGES = 12
SECONDS_BETWEEN_LOOKS = 0.5
MB = 1e6


def timed(call: Callable[..., Any], seconds: list[float]) -> Callable[..., Any]:
    """The same function, which notes how long it has taken in the main thread."""
    import threading

    def wrapped(*arguments: Any, **named: Any) -> Any:
        started = time.perf_counter()
        try:
            return call(*arguments, **named)
        finally:
            if threading.current_thread() is threading.main_thread():
                seconds.append(time.perf_counter() - started)

    return wrapped


def serve(side: str, dataset: Path, output: Path) -> None:
    """Train, and tell the longest wait for files while training, and that at the end."""
    import torch

    import rfdetr

    waits: list[float] = [0.0]
    at_end: list[float] = [0.0]
    if side == "other":
        torch.save = timed(torch.save, waits)
    else:
        from rfdetr.training.checkpoints import Checkpoints

        for name, seconds in (("save", waits), ("finish", at_end)):
            setattr(Checkpoints, name, timed(getattr(Checkpoints, name), seconds))
    model = rfdetr.RFDETRNano(pretrain_weights=None, device="cpu", num_classes=4, resolution=384)
    settings: dict[str, Any] = {"epochs": 2, "batch_size": 2, "grad_accum_steps": 1, "num_workers": 1, "seed": 0}
    model.train(dataset_dir=dataset, output_dir=output, tensorboard=False, multi_scale=False, **settings)
    tell([max(waits), max(at_end)])


def held(process: psutil.Process) -> int:
    """Bytes of a process and all below it; of one that has just ended none."""
    total = 0
    try:
        processes = [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    for each in processes:
        try:
            lines = Path(f"/proc/{each.pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return total


def on_disk(folder: Path) -> int:
    """Bytes of the files of a folder; one that has two names counts once."""
    found = {(stat := path.stat()).st_ino: stat.st_size for path in folder.rglob("*") if path.is_file()}
    return sum(found.values())


def measure(python: str, side: str, folder: Path, threads: int) -> list[float]:
    """MB of memory, MB on the disk, seconds of the longest wait and of that at the end."""
    output, log = folder / side, folder / f"{side}.log"
    command = [python, __file__, "--serve", side, str(folder / "shapes"), str(output)]
    with log.open("w") as said:
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        running = subprocess.Popen(command, env=environment, stdout=said, stderr=subprocess.STDOUT)
        process, peak = psutil.Process(running.pid), 0
        while running.poll() is None:
            peak = max(peak, held(process))
            time.sleep(SECONDS_BETWEEN_LOOKS)
    results = [line for line in log.read_text().splitlines() if line.startswith(RESULT)]
    if not results:
        raise SystemExit(f"{command} ended:\n{log.read_text()[-2000:]}")
    return [peak / MB, on_disk(output) / MB, *json.loads(results[-1].removeprefix(RESULT))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--other", help="a Python with the other package")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--serve", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        side, dataset, output = given.serve
        serve(side, Path(dataset), Path(output))
        return
    from rfdetr.data.synthetic import draw_dataset

    pythons = {"ours": sys.executable} | ({"other": given.other} if given.other else {})
    print("| side | memory, MB | disk, MB | longest wait, s | at the end, s |\n| --- | ---: | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        draw_dataset(folder / "shapes", IMAGES, seed=0)
        found = {}
        for side, python in pythons.items():
            memory, disk, wait, at_end = found[side] = measure(python, side, folder, given.threads)
            print(f"| {side} | {memory:.0f} | {disk:.0f} | {wait:.2f} | {at_end:.2f} |", flush=True)
        if given.other:
            memory, disk, wait = (
                own / other for own, other in list(zip(found["ours"], found["other"], strict=True))[:3]
            )
            print(f"| ratio | {memory:.2f} | {disk:.2f} | {wait:.2f} |  |")
            for side in pythons:
                files = sorted((folder / side).rglob("*"))
                sizes = [
                    f"{path.name} {path.stat().st_size / MB:.0f}" for path in files if path.suffix in (".pth", ".ckpt")
                ]
                print(f"\n{side}: {', '.join(sizes)}")


if __name__ == "__main__":
    main()
