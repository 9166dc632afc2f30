import time

import psutil
import pytest
import torch

from rfdetr.training.memory import PeakMemory, held_memory, usable_memory

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
