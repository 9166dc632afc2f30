"""A function in several processes of this machine.

Each is a program of its own that reads the function and its arguments from a file. So a script needs no
`if __name__ == "__main__"`, a notebook can start them, and CUDA may be in use already. They get the variables that
torchrun sets; the store where they meet is in the process that has started them.
"""

import math
import os
import pickle
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from rfdetr.devices import num_cores
from rfdetr.distributed import Failure
from rfdetr.errors import ConfigError, RFDETRError
from rfdetr.files import write_text

T = TypeVar("T")
Workers = Sequence[subprocess.Popen[bytes]]

# The search path comes first, so that a file of the working directory cannot take the place of a library. Imports take
# seconds, in which Ctrl-C shall end the process without a traceback.
_PROGRAM = """
import signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
sys.path[:] = sys.argv[2:]
from rfdetr.launch import work
work(sys.argv[1])
"""
# Closer together, signals are one: `timeout`, for one, signals its child and then its group.
SECONDS_APART = 0.2
_GRACE = 10.0
"""Seconds in which the others have to end by themselves, after one has failed."""
_CLOSING = 5.0
"""Seconds between asking them to end and killing them."""


def run_in_processes(count: int, function: Callable[..., T], *args: Any) -> T:
    """The value that the first of `count` processes returns; tensors come on the CPU, there and back.

    SIGTERM and SIGINT are passed on to the processes, a second one kills them.

    Args:
        count: processes.
        function: found by its name in a module that can be imported.
        args: its arguments, which can be pickled.

    Raises:
        ConfigError: an argument cannot be pickled.
        RFDETRError: of the process that failed first; where it was another kind of error, that process has shown its
            traceback.
        SystemExit: that process has left with it, or a signal has ended all.
        KeyboardInterrupt: likewise.
    """
    with TemporaryDirectory(prefix="rfdetr-") as name, _caught_signals() as signals:
        folder = Path(name)
        try:
            torch.save((function, args), folder / "call")
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise ConfigError(
                f"devices: what is trained on cannot be given to other processes: {error}. A dataset in Python has to "
                "be one that `pickle` can write, without lambdas and open files"
            ) from None
        with _started(count, folder) as workers:
            failed = _wait(workers, signals, folder)
        if signals and not (failed and _outcome(failed[0], folder).exists()):
            raise KeyboardInterrupt if signals[-1] == signal.SIGINT else SystemExit(128 + signals[-1])
        if failed:
            failures = [_failure(rank, workers[rank].returncode, folder) for rank in failed]
            # The first to end may only have been told of another's error.
            raise next((one for one in failures if one.told().message == failures[0].message), failures[0]).to_error()
        value: T = torch.load(folder / "value", map_location="cpu", weights_only=False)
        return value


@contextmanager
def _caught_signals() -> Iterator[list[int]]:
    """The signals that come meanwhile; only the main thread can catch them."""
    caught: list[int] = []
    latest = -math.inf

    def catch(number: int, _: FrameType | None) -> None:
        nonlocal latest
        if time.monotonic() - latest > SECONDS_APART:
            latest = time.monotonic()
            caught.append(number)

    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, catch)
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _started(count: int, folder: Path) -> Iterator[Workers]:
    """Workers; none of them outlives this, nor, by the end of its standard input, this process."""
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    stores: Any = dist
    store = stores.TCPStore(
        "127.0.0.1", port, is_master=True, wait_for_workers=False, master_listen_fd=listener.detach()
    )
    command = [sys.executable, "-c", _PROGRAM, str(folder), *map(str, sys.path)]
    reading, writing = os.pipe()
    workers: list[subprocess.Popen[bytes]] = []
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        for rank in range(count):
            environment = _environment(rank, count, store.port)
            # In a session of its own: a terminal's Ctrl-C comes to this process, which passes it on once.
            worker = subprocess.Popen(command, env=environment, stdin=reading, start_new_session=True)  # noqa: S603
            workers.append(worker)
        yield workers
    finally:
        _send(workers, signal.SIGKILL)
        for worker in workers:
            worker.wait()
        os.close(reading)
        os.close(writing)


def _environment(rank: int, count: int, port: int) -> dict[str, str]:
    proposed = {
        "OMP_NUM_THREADS": str(max(1, num_cores() // count)),
        "GLOO_SOCKET_IFNAME": socket.if_indextoname(1),  # the loopback: there whatever happens to the network
    }
    place = {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
    }
    return {**proposed, **os.environ, **place}


def _send(workers: Workers, number: int) -> None:
    """A signal to those that still run; SIGKILL also to what they have started."""
    for worker in workers:
        if worker.poll() is None:
            if number == signal.SIGKILL:
                os.killpg(worker.pid, number)
            else:
                worker.send_signal(number)


def _wait(workers: Workers, signals: Sequence[int], folder: Path) -> list[int]:
    """Until all have ended; the ranks that failed, in the order in which they ended."""
    failed: list[int] = []
    num_signals = 0
    deadline = math.inf
    urging = iter([signal.SIGTERM, signal.SIGKILL])
    while True:
        ended = [rank for rank, worker in enumerate(workers) if worker.poll() is not None]
        failed += [rank for rank in ended if rank not in failed and _has_failed(rank, workers[rank].returncode, folder)]
        if len(ended) == len(workers):
            return failed
        if len(signals) > num_signals:
            num_signals = len(signals)
            _send(workers, signals[0] if num_signals == 1 else signal.SIGKILL)
        if failed and deadline == math.inf:
            deadline = time.monotonic() + _GRACE
        if time.monotonic() > deadline:
            _send(workers, next(urging, signal.SIGKILL))
            deadline = time.monotonic() + _CLOSING
        time.sleep(0.1)


def _outcome(rank: int, folder: Path) -> Path:
    return folder / f"{rank}.json"


def _has_failed(rank: int, exit_status: int, folder: Path) -> bool:
    return exit_status != 0 or _outcome(rank, folder).exists()  # sys.exit(0) is no result


def _failure(rank: int, exit_status: int, folder: Path) -> Failure:
    if _outcome(rank, folder).exists():
        return Failure.from_json(_outcome(rank, folder).read_text(encoding="utf-8"))
    if exit_status > 0:
        return Failure(rank, "TrainingError", f"process {rank} ended with exit status {exit_status}; see its messages")
    names = {number.value: number.name for number in signal.Signals}
    hint = "; out of memory?" if -exit_status == signal.SIGKILL else ""
    name = names.get(-exit_status, "real-time signal")
    return Failure(rank, "TrainingError", f"process {rank} was killed by signal {-exit_status} ({name}){hint}")


def work(folder_name: str) -> None:
    """The life of a worker."""
    folder, rank = Path(folder_name), int(os.environ["RANK"])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=_end_with_parent, args=[folder], daemon=True).start()
    try:
        function, args = torch.load(folder / "call", map_location="cpu", weights_only=False)
        value = function(*args)
        if rank == 0:
            torch.save(value, folder / "value")
    except BaseException as error:
        if not isinstance(error, RFDETRError | SystemExit | KeyboardInterrupt):
            sys.stderr.write(f"rfdetr: process {rank} failed:\n{traceback.format_exc()}")
        failure = Failure.of(error, rank)
        write_text(_outcome(rank, folder), failure.to_json())
        sys.exit(failure.exit_status)


def _end_with_parent(folder: Path) -> None:
    os.read(0, 1)  # nothing is ever written
    shutil.rmtree(folder, ignore_errors=True)
    os.killpg(0, signal.SIGKILL)
