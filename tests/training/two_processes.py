"""Trains in two processes as torchrun would start them; a program of its own, since a process with threads cannot fork.

python -m tests.training.two_processes DATASET_DIR OUTPUT_DIR
"""

import multiprocessing
import os
import socket
import sys
from pathlib import Path

import torch

from .tiny import STILL, recorded_gradients, train_tiny


def run(rank: int, port: int, dataset_dir: Path, output_dir: Path) -> None:
    """Leave the gradients and the validation loss as this process saw them."""
    numbers = {"RANK": rank, "LOCAL_RANK": rank, "GROUP_RANK": 0, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}
    os.environ.update({name: str(number) for name, number in numbers.items()})
    os.environ.update({"TORCHELASTIC_RUN_ID": "test", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)})
    torch.set_num_threads(1)
    devices = {"accelerator": "cpu", "devices": 2, "strategy": "ddp"}
    with recorded_gradients() as gradients:
        result, _ = train_tiny(
            dataset_dir, output_dir, batch_size=1, grad_accum_steps=2, seed=None, **{**STILL, **devices}
        )
    torch.save({"gradients": gradients, "val/loss": result.history[-1]["val/loss"]}, output_dir / f"{rank}.pt")


def main(dataset_dir: Path, output_dir: Path) -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=run, args=(rank, port, dataset_dir, output_dir)) for rank in (0, 1)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=120)
    return int(any(process.exitcode for process in processes))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
