"""The memory that is left on this machine, and for its containers; what this process does with what it frees."""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

import psutil

# Limit, use and reclaimable use of a control group: version 2, then 1.
_CGROUP_FILES = (
    ("memory.max", "memory.current", ("inactive_file", "active_file")),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", ("total_inactive_file", "total_active_file")),
)


def free_memory() -> int:
    """Bytes that nobody holds and this process may."""
    return min(psutil.virtual_memory().available, *cgroup_rooms())


def cgroup_rooms(membership: Path = Path("/proc/self/cgroup"), mount: Path = Path("/sys/fs/cgroup")) -> Iterator[int]:
    """Bytes that are left in each control group around this process: a container has less memory than its machine."""
    lines = membership.read_text().splitlines() if membership.exists() else []
    for _, controllers, path in (line.split(":", 2) for line in lines):
        if controllers in ("", "memory"):
            root = mount / controllers
            group = root / path.lstrip("/")
            # What a container sees as its path may be one outside of it; then its own group is the root here.
            for folder in (group, *group.parents):
                yield from _room(folder)
                if folder == root:
                    break


def _room(group: Path) -> Iterator[int]:
    for limit, used, reclaimable in _CGROUP_FILES:
        try:
            room = int((group / limit).read_text()) - int((group / used).read_text())
            stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        except (OSError, ValueError):  # of the other version, or no limit
            continue
        yield room + sum(int(stat.get(name, 0)) for name in reclaimable)


# Parameters of mallopt (man 3 mallopt) with their usual values: these they rise to by themselves.
_TRIM_THRESHOLD, _USUAL_TRIM_THRESHOLD = -1, 64 << 20
_MMAP_THRESHOLD, _USUAL_MMAP_THRESHOLD = -3, 32 << 20
# Pieces up to this size are kept. Larger ones would leave larger holes when something small takes their place.
_LARGEST_KEPT = 128 << 20


# Who is in `freed_memory_kept` now.
_keepers: set[object] = set()
_keepers_change = Lock()


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Inside, large pieces of memory that are freed stay with this process for the next ones.

    Otherwise the C library gives them back, and every training step faults its tensors in anew, 4 KiB at a time: a
    tenth of the step. Only glibc can do that; elsewhere nothing changes. It is of the whole process, until the last of
    several that overlap ends.
    """
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    if library is None or not hasattr(library, "mallopt"):
        yield
        return
    keeper = object()
    with _keepers_change:
        _keepers.add(keeper)
        library.mallopt(_TRIM_THRESHOLD, -1)  # never
        library.mallopt(_MMAP_THRESHOLD, _LARGEST_KEPT)
    try:
        yield
    finally:
        with _keepers_change:
            _keepers.remove(keeper)
            if not _keepers:
                library.mallopt(_TRIM_THRESHOLD, _USUAL_TRIM_THRESHOLD)
                library.mallopt(_MMAP_THRESHOLD, _USUAL_MMAP_THRESHOLD)
                library.malloc_trim(0)
