"""The memory of a device: how much of it this process may hold, and the most it has held."""

import ctypes
import gc
import re
import sys
from pathlib import Path
from threading import Event, Thread
from types import TracebackType

import psutil
import torch
from typing_extensions import Self

from rfdetr.host_memory import free_memory

GIB = 2**30
SECONDS_BETWEEN_LOOKS = 0.01
# The kernel of Linux keeps the most that a process has held, and forgets it when "5" is written here (man 5 proc).
FORGET_PEAK = Path("/proc/self/clear_refs")


# What NVIDIA's libraries say when they get no memory for themselves (lower case); torch passes it on as it is.
_SIGNS = ("cublas_status_alloc_failed", "cudnn_status_alloc_failed", "unable to find an engine")


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether a GPU has too little memory for what it was asked to do."""
    return isinstance(error, torch.OutOfMemoryError) or any(sign in str(error).lower() for sign in _SIGNS)


def held_memory(device: torch.device) -> int:
    """Bytes that this process holds on a device now; on the CPU without its loader processes."""
    if device.type == "cuda":
        return torch.cuda.memory_reserved(device)
    return torch.mps.driver_allocated_memory() if device.type == "mps" else psutil.Process().memory_info().rss


def usable_memory(device: torch.device) -> int:
    """Bytes that this process can hold on a device: what it holds already, and what nobody holds."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] + held_memory(device)
    if device.type == "mps":
        return torch.mps.recommended_max_memory()
    return held_memory(device) + free_memory()


def return_free_memory() -> None:
    """Give back what nobody uses, and what the C library keeps of it, as far as it can: what is reused is not seen."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def return_gpu_memory() -> None:
    """Give back what torch keeps of freed memory of GPUs: other processes see it as used."""
    if torch.cuda.is_initialized():
        gc.collect()
        torch.cuda.empty_cache()


def forget_peak() -> bool:
    """Let the kernel's count of the most that this process has held begin anew; False where it has none."""
    try:
        FORGET_PEAK.write_text("5")
    except OSError:
        return False
    return True


def kernel_peak() -> int:
    """The most bytes that this process has held since `forget_peak`."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    if found is None:
        raise RuntimeError("/proc/self/status: no VmHWM, though the kernel can forget it")
    return int(found[1]) * 1024


class PeakMemory:
    """Finds the most memory that this process holds on a device within a `with`.

    On the CPU the kernel knows; where it does not, a thread looks again and again, and may miss what is held briefly.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.peak = 0
        self._is_over = Event()
        self._thread: Thread | None = None

    def __enter__(self) -> Self:
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)
            return self
        return_free_memory()
        if self.device.type != "cpu" or not forget_peak():
            self._thread = Thread(target=self._watch, daemon=True)
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.device.type == "cuda":
            self.peak = torch.cuda.max_memory_reserved(self.device)
        elif self._thread is None:
            self.peak = kernel_peak()
        else:
            self._is_over.set()
            self._thread.join()

    def _watch(self) -> None:
        is_over = False
        while not is_over:
            is_over = self._is_over.wait(SECONDS_BETWEEN_LOOKS)
            self.peak = max(self.peak, held_memory(self.device))
