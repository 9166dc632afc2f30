"""Trains in one process after another, each ended by signals.

A program of its own, for it forks, which processes with threads cannot, and starting anew takes seconds:

python -m tests.training.lives LIVES

LIVES is a file with a list in JSON: of each life the signals that end it (none: it ends by itself), how many seconds
after its first line, or step, the first of them comes, and the settings. What became of them is written in its place.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import IO, Any

import psutil
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from .stops import PowerCutError
from .tiny import tiny_detector, train_tiny

Life = dict[str, Any]
STEP = "a step\n"
PATIENCE = 60
kept: list[PowerCutError] = []


def live(life: Life) -> None:
    """In a process of its own: train, and end as any program does."""
    torch.set_num_threads(1)

    def after_step(*_: Any) -> None:
        os.write(1, STEP.encode())
        time.sleep(life.get("seconds_per_step", 0))
        if life.get("fails"):
            raise PowerCutError

    register_optimizer_step_post_hook(after_step)
    settings = {"resume": "auto", **life["settings"]}
    dataset_dir, output_dir = Path(settings.pop("dataset_dir")), Path(settings.pop("output_dir"))
    is_resumed = (output_dir / "checkpoint.pth").exists()
    try:
        train_tiny(dataset_dir, output_dir, tiny_detector(2, seed=int(is_resumed)), **settings)
    except PowerCutError as error:
        kept.append(error)  # and with it, all that its traceback refers to


def watch(process: int, pipe: int, life: Life) -> Life:
    """End it as asked; how it has ended: exit status, what it has said, seconds since the last signal, who is left."""
    with os.fdopen(pipe, errors="replace") as lines:
        said = heard(lines, STEP if life.get("after_step") else "")
        time.sleep(life.get("after", 0))
        for number, name in enumerate(life["signals"]):
            time.sleep(number)  # in quick succession, they would be one
            os.killpg(process, getattr(signal, name))  # as a terminal does, to all of them
            signalled = time.monotonic()
            if name != "SIGKILL":
                said += heard(lines, "rfdetr: stopping")
        status = end_of(process)
        said += lines.read()
    return {
        "status": os.waitstatus_to_exitcode(status),
        "said": said.replace(STEP, ""),
        "seconds": time.monotonic() - signalled if life["signals"] else None,
        "left": left_of(process),
    }


def end_of(process: int) -> int:
    """How it has ended; one that hangs is killed."""
    deadline = time.monotonic() + PATIENCE
    while True:
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            return status
        if time.monotonic() > deadline:
            os.killpg(process, signal.SIGKILL)
        time.sleep(0.02)


def heard(lines: IO[str], beginning: str) -> str:
    """All up to a line that begins so."""
    said = line = lines.readline()
    while line and not line.startswith(beginning):
        line = lines.readline()
        said += line
    return said


def left_of(group: int) -> int:
    """How many processes of the group are still there after ten seconds at most."""
    deadline = time.monotonic() + 10
    while (left := sum(is_of(process, group) for process in psutil.process_iter())) and time.monotonic() < deadline:
        time.sleep(0.1)
    return left


def is_of(process: psutil.Process, group: int) -> bool:
    try:
        return os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.NoSuchProcess, ProcessLookupError):
        return False


def main(path: Path) -> None:
    ends = []
    for life in json.loads(path.read_text()):
        reader, writer = os.pipe()
        process = os.fork()
        if process == 0:
            os.setsid()
            os.dup2(writer, 1)
            os.dup2(writer, 2)
            os.closerange(3, 1000)
            live(life)
            return
        os.close(writer)
        ends.append(watch(process, reader, life))
    path.write_text(json.dumps(ends))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
