import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from rfdetr import distributed
from rfdetr.distributed import (
    Failure,
    World,
    barrier,
    broadcast,
    gathered,
    process_group,
    rank_and_world_size,
    world_of_environment,
)
from rfdetr.errors import ConfigError, DatasetError, Interrupted, TrainingError

CPU = torch.device("cpu")
LONE = World(rank=0, local_rank=0, size=1, local_size=1)
MEETING = {"MASTER_ADDR": "node1", "MASTER_PORT": "29500"}
TORCHRUN = {"RANK": "5", "LOCAL_RANK": "1", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4", **MEETING}
BATCH_SHELL = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "7", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0"}
STEP = {
    **BATCH_SHELL,
    "SLURM_STEP_NUM_TASKS": "7",
    "SLURM_STEP_TASKS_PER_NODE": "2(x2),3",
    "SLURM_PROCID": "5",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "2",
}


@pytest.fixture(autouse=True)
def started_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in {*TORCHRUN, *STEP, "TORCHELASTIC_USE_AGENT_STORE"}:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("environment", "world"),
    [
        pytest.param({}, None, id="alone"),
        pytest.param(TORCHRUN, World(5, 1, 8, 4), id="torchrun"),
        pytest.param({**STEP, **TORCHRUN}, World(5, 1, 8, 4), id="torchrun within srun"),
        pytest.param({"RANK": "0", "WORLD_SIZE": "1", **MEETING}, None, id="a pod of one"),
        pytest.param({**STEP, **MEETING}, World(5, 1, 7, 3), id="srun"),
        pytest.param(
            {**STEP, **MEETING, "WORLD_SIZE": "7"}, World(5, 1, 7, 3), id="srun with a WORLD_SIZE of the user"
        ),
        pytest.param({**BATCH_SHELL, **MEETING}, None, id="the shell of sbatch"),
        pytest.param({**STEP, "SLURM_STEP_NUM_TASKS": "1"}, None, id="srun of one task"),
    ],
)
def test_a_process_finds_its_place(
    environment: dict[str, str], world: World | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert world_of_environment() == world
    assert world is None or not world.is_main


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        pytest.param(
            {"RANK": "0", "WORLD_SIZE": "2"},
            "RANK and WORLD_SIZE are set, as torchrun does, but not LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR, "
            "MASTER_PORT: start with torchrun, or unset RANK to run in one process",
            id="half of torchrun",
        ),
        pytest.param(
            {**TORCHRUN, "WORLD_SIZE": "two"}, "WORLD_SIZE='two' in the environment is not a number", id="no number"
        ),
        pytest.param(
            STEP,
            "srun has started 7 processes, but MASTER_ADDR and MASTER_PORT are not set: where they meet. Before srun, "
            "write\n"
            '  export MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)\n'
            "  export MASTER_PORT=$((20000 + SLURM_JOB_ID % 10000))",
            id="srun without a meeting point",
        ),
    ],
)
def test_half_a_place_is_refused(environment: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError) as error:
        world_of_environment()
    assert str(error.value) == message


def test_a_lone_process_is_all_there_is() -> None:
    barrier()
    assert (rank_and_world_size(), gathered("a"), broadcast("a")) == ((0, 1), ["a"], "a")


def test_a_group_of_one_is_joined_and_left_without_a_trace() -> None:
    threads = threading.active_count()
    for _ in range(2):
        with process_group(LONE, CPU):
            assert (rank_and_world_size(), gathered("a"), broadcast("a")) == ((0, 1), ["a"], "a")
            assert torch.distributed.is_initialized()
        assert not torch.distributed.is_initialized()
    with pytest.raises(ZeroDivisionError), process_group(LONE, CPU):
        assert 1 / 0
    assert not torch.distributed.is_initialized()
    assert threading.active_count() == threads


def test_a_group_of_the_users_own_is_refused() -> None:
    with (
        process_group(LONE, CPU),
        pytest.raises(ConfigError, match="in use already: leave out init_process_group, it is done for you"),
        process_group(LONE, CPU),
    ):
        pass


class DiskError(DatasetError):
    """A kind that the others need not know."""


@pytest.mark.parametrize(
    ("error", "told"),
    [
        pytest.param(ConfigError("no such folder"), ConfigError("process 3: no such folder"), id="ours"),
        pytest.param(DiskError("gone"), DatasetError("process 3: gone"), id="a kind of ours"),
        pytest.param(ValueError("bad"), TrainingError("process 3: ValueError: bad"), id="another"),
        pytest.param(Interrupted(143), Interrupted(143), id="a saved run"),
        pytest.param(SystemExit(), SystemExit(0), id="leaving"),
        pytest.param(SystemExit("enough"), SystemExit("process 3: enough"), id="leaving with a message"),
        pytest.param(KeyboardInterrupt(), KeyboardInterrupt(""), id="Ctrl-C"),
    ],
)
def test_an_error_travels_as_text(error: BaseException, told: BaseException) -> None:
    failure = Failure.from_json(Failure.of(error, 3).to_json()).told().to_error()
    assert (type(failure), failure.args) == (type(told), told.args)


SHARING = """
import os, time
import torch
import torch.distributed as dist
from rfdetr.distributed import broadcast, gathered, process_group, rank_and_world_size, world_of_environment
from rfdetr.errors import DatasetError

def say(text):
    os.write(1, f"{text}\\n".encode())  # at once: both write to one pipe

world = world_of_environment()
with process_group(world, torch.device("cpu")):
    values = gathered(world.rank), broadcast(f"of {world.rank}", source=1)
    say(f"place {world} {rank_and_world_size()} {values[0]} {values[1]}")
start = time.monotonic()
try:
    with process_group(world, torch.device("cpu")):
        if world.rank == 1:
            raise DatasetError("valid/a.png is missing")
        dist.all_reduce(torch.ones(3))
except DatasetError as error:
    say(f"rank {world.rank}: {error}")
    assert time.monotonic() - start < 10
"""


def test_processes_of_torchrun_share_values_and_errors(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SHARING)
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(tmp_path / "script.py")]
    done = subprocess.run([sys.executable, *command], check=False, capture_output=True, text=True)  # noqa: S603
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == [
        *(
            f"place World(rank={rank}, local_rank={rank}, size=2, local_size=2) ({rank}, 2) [0, 1] of 1"
            for rank in range(2)
        ),
        "rank 0: process 1: valid/a.png is missing",
        "rank 1: valid/a.png is missing",
    ]


VANISHING = """
import os, signal
import torch
from rfdetr.distributed import gathered, process_group, world_of_environment

world = world_of_environment()
assert world.local_size == 2
with process_group(world, torch.device("cpu")):
    gathered(f"from {world.rank}")
with process_group(world, torch.device("cpu")):
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_processes_of_srun_meet_and_one_that_vanishes_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first of them, which holds what they need to meet, is this process."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    step = {"SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_TASKS_PER_NODE": "2", "SLURM_NODEID": "0"}
    places = [{**step, "SLURM_PROCID": rank, "SLURM_LOCALID": rank} for rank in "01"]
    for name, value in {**places[0], "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}.items():
        monkeypatch.setenv(name, value)
    world = world_of_environment()
    assert world is not None
    assert world.is_main
    other = subprocess.Popen([sys.executable, "-c", VANISHING], env={**os.environ, **places[1]})  # noqa: S603
    with process_group(world, CPU):
        assert gathered("from 0") == ["from 0", "from 1"]
    monkeypatch.setattr(distributed, "_LEAVING", 0.1)
    with pytest.raises(TrainingError, match="another process has gone without a word: was it killed"):  # noqa: SIM117
        with process_group(world, CPU):
            barrier()
    assert other.wait() == -signal.SIGKILL
