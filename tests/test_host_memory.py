from pathlib import Path

import psutil
import pytest

from rfdetr.host_memory import cgroup_rooms, free_memory


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
