import sys
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from rfdetr.host_memory import cgroup_rooms, free_memory, freed_memory_kept


def test_there_is_free_memory_and_less_than_the_machine_has() -> None:
    assert 0 < free_memory() < psutil.virtual_memory().total


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


def page_faults(pieces: int, size: int) -> int:
    """Of writing to fresh pieces of memory, one after the other."""
    resource = pytest.importorskip("resource")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(pieces):
        bytearray(size).find(1)
    return int(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)


@pytest.mark.skipif(sys.platform != "linux", reason="of the C library of Linux")
def test_inside_freed_memory_is_not_faulted_in_again() -> None:
    size = 100 * 2**20
    outside = page_faults(10, size)
    with freed_memory_kept():
        page_faults(1, size)
        inside = page_faults(10, size)
    assert inside < outside / 5
    assert page_faults(10, size) > 5 * inside


@pytest.mark.skipif(sys.platform != "linux", reason="of the C library of Linux")
def test_of_several_that_overlap_the_last_one_ends_it() -> None:
    size = 100 * 2**20
    with ExitStack() as second:
        with freed_memory_kept():
            second.enter_context(freed_memory_kept())
        page_faults(1, size)
        inside = page_faults(10, size)
    assert page_faults(10, size) > 5 * inside
