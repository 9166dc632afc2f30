import time
from pathlib import Path

import psutil
import pytest
import torch

from rfdetr.training import memory
from rfdetr.training.memory import PeakMemory, held_memory, is_out_of_memory, usable_memory

from .tiny import CPU

MIB = 2**20


@pytest.mark.parametrize("is_counted", [True, False], ids=["by the kernel", "by looking"])
def test_the_peak_is_that_of_the_time_inside(is_counted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not is_counted:
        monkeypatch.setattr(memory, "FORGET_PEAK", tmp_path)
    elif not memory.forget_peak():
        pytest.skip("this kernel does not count")
    kept = [torch.ones(MIB // 4) for _ in range(200)]  # what the C library may keep of it is given back
    del kept
    with PeakMemory(CPU) as found:
        before = held_memory(CPU)
        tensor = torch.ones(50 * MIB // 4)
        deadline = time.monotonic() + 10
        while not is_counted and found.peak < before + 40 * MIB and time.monotonic() < deadline:
            time.sleep(0.02)
        del tensor
    assert found.peak - before == pytest.approx(50 * MIB, abs=10 * MIB)


def test_a_process_can_use_what_it_holds_and_what_is_free() -> None:
    assert held_memory(CPU) < usable_memory(CPU) <= psutil.virtual_memory().total


@pytest.mark.parametrize(
    ("error", "is_one"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("FIND was unable to find an engine to execute this computation"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)"), False),
    ],
)
def test_other_errors_are_not_taken_for_a_lack_of_memory(error: RuntimeError, is_one: bool) -> None:
    assert is_out_of_memory(error) == is_one
