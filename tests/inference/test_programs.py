import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jaxtyping
import pytest
from tests.tiny import TINY

from rfdetr.errors import ConfigError
from rfdetr.inference import programs
from rfdetr.models.detector import Detector

pytest.importorskip("openvino")
NOBODY = 65534


@pytest.fixture(autouse=True)
def _unchecked_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a trace sizes are tensors, too."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """One that everybody may read; pytest's own folders are for their user alone."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        monkeypatch.setenv("RFDETR_CACHE", folder)
        yield Path(folder) / "optimized"


@contextmanager
def as_nobody() -> Iterator[None]:
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can go on as another user")
def test_a_cache_that_may_only_be_read_serves_the_programs_in_it(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "CODE", ())  # which others may not be allowed to read
    made = programs.kept_program(Detector(TINY), 1)
    with as_nobody():
        assert programs.kept_program(Detector(TINY), 1) == made
        with pytest.raises(ConfigError, match=rf"^optimize: {cache}: Permission denied\. Another place"):
            programs.kept_program(Detector(TINY), 2)


def test_what_was_used_last_is_kept(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "PROGRAMS_KEPT", 2)
    first, second = (programs.kept_program(Detector(TINY), size) for size in (1, 2))
    for age, file in enumerate((second, first), start=1):
        os.utime(file.parent, (age, age))
    assert programs.kept_program(Detector(TINY), 2) == second  # which now is newer
    third = programs.kept_program(Detector(TINY), 3)
    assert [file.is_file() for file in (first, second, third)] == [False, True, True]


def test_what_other_processes_are_making_is_neither_removed_nor_counted(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(programs, "PROGRAMS_KEPT", 2)
    cache.mkdir()
    older, newer = (Path(tempfile.mkdtemp(dir=cache)) / "detector.xml" for _ in range(2))
    for file, date in ((older, time.time() - 3600), (newer, 2**33)):
        file.touch()
        os.utime(file.parent, (date, date))
    made = [programs.kept_program(Detector(TINY), size) for size in (1, 2, 3)]
    assert [file.is_file() for file in (older, newer, *made)] == [True, True, False, True, True]


def test_what_killed_processes_have_left_is_removed_after_a_day(cache: Path) -> None:
    cache.mkdir()
    folders = [Path(tempfile.mkdtemp(dir=cache)) for _ in range(2)]
    for folder, hours in zip(folders, (23, 25), strict=True):
        (folder / "detector.bin").touch()
        os.utime(folder, 2 * (time.time() - 3600 * hours,))
    programs.kept_program(Detector(TINY), 1)
    assert [folder.exists() for folder in folders] == [True, False]


def test_programs_that_other_processes_remove_meanwhile_are_no_error(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(programs, "PROGRAMS_KEPT", 3000)
    others = [cache / f"{number:032x}" for number in range(3000)]
    for folder in others:
        folder.mkdir(parents=True)
        (folder / "detector.xml").touch()
    done = threading.Event()

    def remove() -> None:
        for folder in others:
            shutil.rmtree(folder)
            if done.wait(0.001):
                return

    process = threading.Thread(target=remove)
    process.start()
    try:
        assert programs.kept_program(Detector(TINY), 1).is_file()
    finally:
        done.set()
        process.join()
