import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
import torch.distributed as dist

from rfdetr.distributed import gathered, process_group, world_of_environment
from rfdetr.errors import TrainingError
from rfdetr.launch import run_in_processes

CPU = torch.device("cpu")
NAMES = ("OMP_NUM_THREADS", "GLOO_SOCKET_IFNAME")


def places(scale: torch.Tensor) -> list[Any]:
    world = world_of_environment()
    assert world is not None
    with process_group(world, CPU):
        return gathered((world, scale * world.rank, [os.environ[name] for name in NAMES]))


def test_the_first_process_returns_what_all_have_gathered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('a file of the user')")
    monkeypatch.chdir(tmp_path)
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    found = run_in_processes(2, places, torch.tensor([2.0]))
    assert [(world.rank, world.local_rank, world.size, world.local_size) for world, *_ in found] == [
        (0, 0, 2, 2),
        (1, 1, 2, 2),
    ]
    assert [scaled.tolist() for _, scaled, _ in found] == [[0], [2]]
    threads = str(max(1, len(os.sched_getaffinity(0)) // 2))
    assert [environment for *_, environment in found] == [[threads, socket.if_indextoname(1)]] * 2


def fail_in_the_second() -> None:
    world = world_of_environment()
    assert world is not None
    with process_group(world, CPU):
        if world.rank == 1:
            raise ZeroDivisionError("no objects")
        dist.all_reduce(torch.ones(3))


def test_an_error_ends_all_and_shows_its_traceback_once(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(TrainingError) as error:
        run_in_processes(2, fail_in_the_second)
    assert str(error.value) == "ZeroDivisionError: no objects"
    shown = capfd.readouterr().err
    assert shown.startswith("rfdetr: process 1 failed:\nTraceback")
    assert shown.count("Traceback") == 1


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_process_is_named() -> None:
    with pytest.raises(TrainingError) as error:
        run_in_processes(1, die)
    assert str(error.value) == "process 0 was killed by signal 9 (SIGKILL); out of memory?"


def leave_when_told(folder: Path) -> None:
    """With a child, as loaders are."""
    rank = os.environ["RANK"]
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"])
    with (folder / rank).open("w") as file:
        signal.signal(signal.SIGTERM, lambda *_: print("told", file=file, flush=True))
        print(os.getpid(), child.pid, file=file, flush=True)
        while True:
            time.sleep(0.1)


PARENT = """
import sys
from pathlib import Path
from rfdetr.launch import run_in_processes
from tests.test_launch import leave_when_told
run_in_processes(2, leave_when_told, Path(sys.argv[1]))
"""


def test_processes_hear_a_signal_once_and_do_not_outlive_their_parent(tmp_path: Path) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    command = [sys.executable, "-c", PARENT, str(tmp_path)]  # without `if __name__ == "__main__"`
    environment = {**os.environ, "TMPDIR": str(temporary), "PYTHONPATH": str(Path(__file__).parents[1])}
    parent = subprocess.Popen(command, env=environment)  # noqa: S603
    lines = seen(tmp_path, 1)
    started = [psutil.Process(int(pid)) for (pids,) in lines for pid in pids.split()]
    parent.terminate()
    assert [told for _, told in seen(tmp_path, 2)] == ["told", "told"]
    assert next(temporary.glob("rfdetr-*/call"))
    parent.kill()
    parent.wait()
    assert psutil.wait_procs(started, timeout=10)[1] == []
    assert list(temporary.iterdir()) == []
    assert [len(lines) for lines in seen(tmp_path, 2)] == [2, 2]


def seen(folder: Path, num_lines: int) -> list[list[str]]:
    """What two processes have written, as soon as each has that many lines."""
    for _ in range(300):
        files = [folder / str(rank) for rank in range(2)]
        lines = [file.read_text().splitlines() if file.exists() else [] for file in files]
        if all(len(own) >= num_lines for own in lines):
            return lines
        time.sleep(0.1)
    raise TimeoutError(f"only {lines}")
