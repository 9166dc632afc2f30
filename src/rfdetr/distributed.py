"""The processes of a run: their places, what they tell each other, and how an error of one ends them all."""

import json
import os
import re
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from functools import cache
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from typing_extensions import Self

from rfdetr import errors
from rfdetr.errors import ConfigError, TrainingError

T = TypeVar("T")
Store = Any
_stores: Any = dist
"""Its classes of stores: unknown to type checkers, and missing where torch was built without them."""

_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_MEETING = timedelta(minutes=10)
"""How long the processes wait for each other at the start."""
_SILENCE = timedelta(minutes=30)
"""How long a collective operation may take; one process may write files or compute metrics while the others wait."""
_GRACE = 20.0
"""Seconds in which a process has to come to an end by itself, after another has failed."""
_WORD = 1.0
"""Seconds in which the reason for a broken connection has to arrive."""
_LEAVING = 3.0
"""Seconds that the process with the store stays for the others."""


@dataclass(frozen=True)
class World:
    """A process's place among those of a run, and among those on its machine."""

    rank: int
    local_rank: int
    size: int
    local_size: int

    @property
    def is_main(self) -> bool:
        return self.rank == 0


def world_of_environment() -> World | None:
    """The place that torchrun or srun gave this process; None: it was started alone.

    Raises:
        ConfigError: the environment says only half of it.
    """
    if "RANK" in os.environ and "WORLD_SIZE" in os.environ:
        return _world_of_torchrun()
    # Of srun alone: sbatch and salloc set SLURM_NTASKS, too, for a single process.
    size = _number("SLURM_STEP_NUM_TASKS") if "SLURM_STEP_NUM_TASKS" in os.environ else 1
    return _world_of_srun(size) if size > 1 else None


def _world_of_torchrun() -> World | None:
    missing = [name for name in _TORCHRUN if name not in os.environ]
    if "LOCAL_RANK" in missing and _number("WORLD_SIZE") == 1:
        return None
    if missing:
        raise ConfigError(
            f"RANK and WORLD_SIZE are set, as torchrun does, but not {', '.join(missing)}: "
            "start with torchrun, or unset RANK to run in one process"
        )
    return World(_number("RANK"), _number("LOCAL_RANK"), _number("WORLD_SIZE"), _number("LOCAL_WORLD_SIZE"))


def _world_of_srun(size: int) -> World:
    missing = [name for name in ("MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing:
        raise ConfigError(
            f"srun has started {size} processes, but {' and '.join(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} not set: where they meet. Before srun, write\n"
            '  export MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)\n'
            "  export MASTER_PORT=$((20000 + SLURM_JOB_ID % 10000))"
        )
    per_node = [  # of "4(x2),3"
        int(tasks)
        for tasks, nodes in re.findall(r"(\d+)(?:\(x(\d+)\))?", os.environ["SLURM_STEP_TASKS_PER_NODE"])
        for _ in range(int(nodes or 1))
    ]
    return World(_number("SLURM_PROCID"), _number("SLURM_LOCALID"), size, per_node[_number("SLURM_NODEID")])


def _number(name: str) -> int:
    try:
        return int(os.environ[name])
    except ValueError:
        raise ConfigError(f"{name}={os.environ[name]!r} in the environment is not a number") from None


def rank_and_world_size() -> tuple[int, int]:
    return (dist.get_rank(), dist.get_world_size()) if _is_group() else (0, 1)


def gathered(value: T) -> list[T]:
    """The values that all processes call this with, in the order of their ranks."""
    if not _is_group():
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def broadcast(value: T, source: int = 0) -> T:
    """The value that the process of rank `source` calls this with; what the others bring is of no matter."""
    values = [value]
    if _is_group():
        dist.broadcast_object_list(values, src=source)
    return values[0]


def barrier() -> None:
    """Wait until all processes are here."""
    if _is_group():
        dist.barrier()


def _is_group() -> bool:
    return dist.is_available() and dist.is_initialized()


@contextmanager
def process_group(world: World, device: torch.device) -> Iterator[None]:
    """Join the processes in a torch.distributed group; they leave it together.

    When one of them raises, the others end with its error, too, "process 1: " before the message: at once where they
    wait for it, and after 20 seconds if they hang.

    Raises:
        ConfigError: there is a group already, or no connection to MASTER_ADDR:MASTER_PORT.
        TrainingError: a process has not come within 10 minutes, or has vanished without a word.
    """
    if _is_group():
        raise ConfigError("torch.distributed is in use already: leave out init_process_group, it is done for you")
    of_errors, of_group = _store(world, "errors"), _store(world, "group")
    name = f"rfdetr/{of_errors.add(f'groups/{world.rank}', 1)}"
    with _Watch(world, _stores.PrefixStore(name, of_errors)) as watch:
        try:
            _join(world, device, _stores.PrefixStore(name, of_group))
            yield
            barrier()
        except BaseException as error:
            cause = watch.share(error)
            _leave(in_order=False)
            if cause is error:
                raise
            raise cause from None
        _leave(in_order=True)


def _hosts_store(world: World) -> bool:
    return world.is_main and world.size > 1 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"


@cache  # for the life of the process: others may still use what this one hosts
def _store(world: World, _use: str) -> Store:
    """A connection to the store of all processes. Each use has its own, for a waiting one is blocked for others."""
    if world.size == 1:
        return _stores.HashStore()
    host, port = os.environ["MASTER_ADDR"], _number("MASTER_PORT")
    try:
        return _stores.TCPStore(
            host,
            port,
            is_master=_hosts_store(world),
            timeout=_MEETING,
            wait_for_workers=False,
            multi_tenant=True,
        )
    except (dist.DistError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"the processes cannot meet at MASTER_ADDR:MASTER_PORT, {host}:{port}: {reason}\n"
            "All machines must reach the first by this name; torchrun takes it from --master-addr or --local-addr"
        ) from None


def _join(world: World, device: torch.device, store: Store) -> None:
    _meet(world, store, "present")
    is_cuda = device.type == "cuda"
    if is_cuda:
        torch.cuda.set_device(device)  # what objects travel through
    dist.init_process_group(
        "nccl" if is_cuda else "gloo",
        store=store,
        rank=world.rank,
        world_size=world.size,
        timeout=_SILENCE,
        device_id=device if is_cuda else None,
    )
    _meet(world, store, "joined")  # who joins one that has failed meanwhile would wait in vain


def _meet(world: World, store: Store, key: str) -> None:
    keys = [f"{key}/{rank}" for rank in range(world.size)]
    store.set(keys[world.rank], "")
    try:
        store.wait(keys, _MEETING)
    except dist.DistStoreError:
        missing = ", ".join(str(rank) for rank, key in enumerate(keys) if not store.check([key]))
        raise TrainingError(
            f"of {world.size} processes, these have not come within {_MEETING.seconds // 60} minutes: {missing}"
        ) from None


def _leave(*, in_order: bool) -> None:
    if not _is_group():
        return
    if in_order or dist.get_backend() != "nccl":
        dist.destroy_process_group()
    else:  # the orderly way waits for operations that the others will not take part in
        dist.distributed_c10d._abort_process_group()


@dataclass(frozen=True)
class Failure:
    """What a process has ended with, in words that can be sent."""

    rank: int
    kind: str
    """Name of a class of `rfdetr.errors`, SystemExit or KeyboardInterrupt."""
    message: str
    exit_status: int = 1

    @classmethod
    def of(cls, error: BaseException, rank: int) -> Self:
        kind = next((base.__name__ for base in type(error).__mro__ if base in _KINDS), None)
        if kind is None:
            return cls(rank, "TrainingError", f"{type(error).__name__}: {error}")
        if isinstance(error, SystemExit) and not isinstance(error.code, str):
            return cls(rank, kind, "", error.code or 0)
        return cls(rank, kind, str(error), 130 if isinstance(error, KeyboardInterrupt) else 1)

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        return cls(**json.loads(text))

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    def told(self) -> Self:
        """As the others speak of it."""
        return replace(self, message=f"process {self.rank}: {self.message}") if self.message else self

    def to_error(self) -> BaseException:
        kind = next(kind for kind in _KINDS if kind.__name__ == self.kind)
        return kind(self.exit_status) if issubclass(kind, SystemExit) and not self.message else kind(self.message)


_KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type)] + [SystemExit, KeyboardInterrupt]


class _Watch:
    """Hears of the first failure of any process, and ends this one where it hangs."""

    def __init__(self, world: World, store: Store) -> None:
        self._world = world
        self._store = store
        self._failure: Failure | None = None
        self._lock = threading.Lock()
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="rfdetr-errors", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join(timeout=_LEAVING)
        with suppress(dist.DistError):
            if self._failure is None:
                self._store.add("left", 1)
            deadline = time.monotonic() + _LEAVING
            while _hosts_store(self._world) and time.monotonic() < deadline:
                if self._store.add("left", 0) == self._world.size:
                    break
                time.sleep(0.05)

    def share(self, error: BaseException) -> BaseException:
        """What to end with: this error, of which the others now hear, or the one of another process behind it."""
        if self._world.size == 1:
            return error
        if _is_broken_connection(error):
            deadline = time.monotonic() + _WORD
            while (failure := self._heard()) is None and time.monotonic() < deadline:
                time.sleep(0.1)
            if failure is not None:
                return failure.told().to_error()
            error = TrainingError(
                "another process has gone without a word: was it killed, for lack of memory? "
                f"({str(error).splitlines()[0]})"
            )
        with suppress(dist.DistError):
            self._store.compare_set("failure", "", Failure.of(error, self._world.rank).to_json())
        self._heard()
        return error

    def _heard(self) -> Failure | None:
        """The first failure, if there is one. Then this process needs the store no more, and its host may leave."""
        with self._lock:
            if self._failure is None:
                try:
                    if self._store.check(["failure"]):
                        self._failure = Failure.from_json(self._store.get("failure"))
                        self._store.add("left", 1)
                except dist.DistError:
                    lost = "gone, for nothing answers at MASTER_ADDR:MASTER_PORT any more"
                    self._failure = Failure(0, "TrainingError", lost)
            return self._failure

    def _watch(self) -> None:
        while (failure := self._heard()) is None:
            if self._is_over.wait(1.0):
                return
        # Who has failed first may have to wait for those who hang, to close its connections.
        if not self._is_over.wait(_GRACE * 2 if failure.rank == self._world.rank else _GRACE):
            sys.stderr.write(f"rfdetr: {failure.told().message or f'process {failure.rank} has ended'}\n")
            sys.stderr.flush()
            os._exit(failure.exit_status or 1)


def _is_broken_connection(error: BaseException) -> bool:
    # Gloo raises plain RuntimeErrors; they name its source files.
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "/gloo/" in str(error))
