"""Trains in the processes that torchrun has started, one run after another, and leaves what each process has seen:

torchrun --standalone --nproc-per-node 2 -m tests.training.two_processes HALF_EMPTY DOTS OUTPUT_DIR
"""

import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from rfdetr.distributed import World, barrier, process_group, world_of_environment
from rfdetr.errors import ImageError, Interrupted

from .stops import TWO_EPOCHS, after_steps, in_evaluations
from .tiny import CPU, STILL, recorded_gradients, tiny_detector, train_tiny

# Four images per step, as the same settings on one process and twice the batch.
SHARED: dict[str, Any] = {**TWO_EPOCHS, "batch_size": 1}

# Of this seed's second step all four images are without objects.
WITH_AN_EMPTY_STEP = 846428920


def gradients(dataset_dir: Path, output_dir: Path, seed: int | None = None) -> dict[str, Any]:
    """Of a run of one epoch that learns nothing, and its last row."""
    with recorded_gradients() as found:
        result, _ = train_tiny(dataset_dir, output_dir, batch_size=1, grad_accum_steps=2, seed=seed, **STILL)
    return {"gradients": found, "row": result.history[-1]}


def straight(dataset_dir: Path, output_dir: Path) -> dict[str, Any]:
    result, detector = train_tiny(dataset_dir, output_dir, **SHARED)
    return {"weights": detector.state_dict(), "history": result.history}


def stopped(world: World, dataset_dir: Path, output_dir: Path) -> dict[str, Any]:
    """One of the processes is signalled in a step and in an evaluation, and the other one in a step."""
    ends = []
    stops: list[Callable[[], Any]] = [
        lambda: after_steps(*([2] if world.rank == 1 else [])),
        lambda: in_evaluations(*([1] if world.rank == 1 else [])),
        lambda: after_steps(*([2] if world.rank == 0 else [])),
    ]
    for number, stop in enumerate(stops):
        try:
            with stop(), process_group(world, CPU):
                train_tiny(dataset_dir, output_dir, tiny_detector(2, seed=number), resume="auto", **SHARED)
        except Interrupted as end:
            ends.append(end.code)
        if number == 0 and world.rank == 0:
            shutil.copytree(output_dir, output_dir.with_name("interrupted"))
    with process_group(world, CPU):
        _, detector = train_tiny(dataset_dir, output_dir, tiny_detector(2, seed=9), resume="auto", **SHARED)
    return {"ends": ends, "weights": detector.state_dict()}


def failed(world: World, dataset_dir: Path, output_dir: Path) -> dict[str, Any]:
    def fail() -> None:
        raise ValueError("a disk is gone")

    started = time.monotonic()
    try:
        with after_steps(*([2] if world.rank == 1 else []), end=fail), process_group(world, CPU):
            train_tiny(dataset_dir, output_dir, **SHARED)
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}", "seconds": time.monotonic() - started}
    return {}


def damaged(world: World, dots: Path, output_dir: Path) -> dict[str, Any]:
    """Three of the pictures end too early; then so many are too many."""
    data = output_dir / "damaged dots"
    if world.is_main:
        shutil.copytree(dots, data)
        for name in ("train/2.png", "train/5.png", "valid/1.png"):
            (data / name).write_bytes((data / name).read_bytes()[:-2000])
    barrier()
    result, _ = train_tiny(data, output_dir / "damaged", **SHARED)
    try:
        train_tiny(data, output_dir / "refused", max_bad_images=1, **SHARED)
    except ImageError as error:
        return {"metrics": result.metrics, "error": str(error)}
    return {}


def main(half_empty: Path, dots: Path, output_dir: Path) -> None:
    torch.set_num_threads(1)
    world = world_of_environment()
    assert world is not None
    seen: dict[str, Any] = {}
    with process_group(world, CPU):
        seen["half_empty"] = gradients(half_empty, output_dir / "half_empty", seed=WITH_AN_EMPTY_STEP)
        seen["dots"] = gradients(dots, output_dir / "dots")  # one of them draws the seed
        seen["damaged"] = damaged(world, dots, output_dir)
        seen["straight"] = straight(dots, output_dir / "straight")
    seen["stopped"] = stopped(world, dots, output_dir / "stopped")
    seen["failed"] = failed(world, dots, output_dir / "failed")
    torch.save(seen, output_dir / f"{world.rank}.pt")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
