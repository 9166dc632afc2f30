import time
from pathlib import Path

import psutil
import pytest
import torch

from rfdetr.training.memory import PeakMemory, cgroup_rooms, held_memory, usable_memory

from .tiny import CPU

MIB = 2**20


def test_the_peak_is_that_of_the_time_inside() -> None:
    kept = [torch.ones(MIB // 4) for _ in range(200)]  # what the C library may keep of it is given back
    del kept
    with PeakMemory(CPU) as memory:
        before = held_memory(CPU)
        tensor = torch.ones(50 * MIB // 4)
        deadline = time.monotonic() + 10
        while memory.peak < before + 40 * MIB and time.monotonic() < deadline:
            time.sleep(0.02)
        del tensor
    assert memory.peak - before == pytest.approx(50 * MIB, abs=10 * MIB)


def test_a_process_can_use_what_it_holds_and_what_is_free() -> None:
    assert held_memory(CPU) < usable_memory(CPU) <= psutil.virtual_memory().total


@pytest.mark.parametrize(
    ("line", "group", "files", "rooms"),
    [
        pytest.param(
            "0::/app/run",
            "app",
            {
                "memory.max": "1000",
                "memory.current": "700",
                "memory.stat": "inactive_file 50\nactive_file 100\nanon 550",
            },
            [450],
            id="version 2: the limit of a group further out; page cache is free",
        ),
        pytest.param(
            "4:memory:/app",
            "memory/app",
            {
                "memory.limit_in_bytes": "1000",
                "memory.usage_in_bytes": "700",
                "memory.stat": "total_inactive_file 50\ninactive_file 7",
            },
            [350],
            id="version 1",
        ),
        pytest.param(
            "0::/../outside",
            "",
            {"memory.max": "1000", "memory.current": "700", "memory.stat": ""},
            [300],
            id="in a container: its own group is the root",
        ),
        pytest.param(
            "0::/app", "app", {"memory.max": "max", "memory.current": "7", "memory.stat": ""}, [], id="no limit"
        ),
        pytest.param("5:cpu:/app", "app", {}, [], id="not of memory"),
    ],
)
def test_the_room_that_control_groups_leave(
    line: str, group: str, files: dict[str, str], rooms: list[int], tmp_path: Path
) -> None:
    (tmp_path / "mount" / group).mkdir(parents=True)
    for name, content in files.items():
        (tmp_path / "mount" / group / name).write_text(content)
    (tmp_path / "membership").write_text(f"{line}\n")
    assert list(cgroup_rooms(tmp_path / "membership", tmp_path / "mount")) == rooms


def test_elsewhere_there_are_no_control_groups(tmp_path: Path) -> None:
    assert list(cgroup_rooms(tmp_path / "missing")) == []
