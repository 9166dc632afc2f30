"""Which device, and which number format it is fast at."""

import os
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from rfdetr.config.values import Precision
from rfdetr.errors import ConfigError

_QUESTIONS = {
    "avx512_bf16": "_is_avx512_bf16_supported",
    "avx512_vnni": "_is_vnni_supported",
    "amx_bf16": "_is_amx_tile_supported",
    "amx_tile": "_is_amx_tile_supported",
}
"""To a torch (up to 2.10) that does not list what a processor has."""


def pick_device(name: str | None) -> torch.device:
    """The named device, or the best there is; of several GPUs without a number, that of this process.

    Raises:
        ConfigError: the named device is not on this machine.
    """
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device: {name!r} asked for, but torch sees no CUDA device here. Use device='cpu'")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"device: {name!r} asked for, but there are only {torch.cuda.device_count()} CUDA devices")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigError("device: 'mps' asked for, but this machine has none. Use device='cpu'")
    return _own_gpu() if name == "cuda" else device


def _own_gpu() -> torch.device:
    """Of the processes that torchrun or srun starts, each has its own; the first GPU would not hold all of them."""
    found = os.environ.get("LOCAL_RANK") or os.environ.get("SLURM_LOCALID") or ""
    local_rank = int(found) if found.isdecimal() else 0
    return torch.device("cuda", local_rank) if 0 < local_rank < torch.cuda.device_count() else torch.device("cuda")


def training_device(name: str, accelerator: str = "auto") -> torch.device:
    """Where to train. "cuda" is the best there is; other names are strict.

    Raises:
        ConfigError: the named device, or one of the accelerator's kind, is not on this machine.
    """
    if accelerator == "auto":
        return pick_device(None if name == "cuda" else name)
    kinds = {"gpu": ("cuda", "mps")}.get(accelerator, (accelerator,))
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    found = [kind for kind in kinds if there[kind]]
    if not found:
        raise ConfigError(f"accelerator: {accelerator!r} asked for, but this machine has none. Use accelerator='cpu'")
    return pick_device(name if torch.device(name).type in found else found[0])


def as_current(device: torch.device) -> AbstractContextManager[Any]:
    """Within, torch takes this GPU where nobody names one, as its loaders do; else they would open the first one."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def autocast_dtype(precision: Precision, device: torch.device) -> torch.dtype | None:
    """The dtype of mixed precision on a device, or None for float32 throughout."""
    if precision == "auto":
        if device.type == "cuda":
            return torch.bfloat16 if torch.cuda.get_device_capability(device)[0] >= 8 else torch.float16
        if device.type == "mps":
            return torch.float16
        return torch.bfloat16 if device.type == "cpu" and multiplies_bfloat16() else None
    return {"32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


def multiplies_bfloat16() -> bool:
    """Whether this processor has instructions for products of bfloat16; others are slower in it than in float32."""
    return processor_has("avx512_bf16", "amx_bf16")


def num_cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor_has(*instructions: str) -> bool:
    """Whether this processor has at least one of these sets of instructions, by torch's names."""
    if hasattr(torch.cpu, "get_capabilities"):
        known = torch.cpu.get_capabilities()
    else:
        known = {name: getattr(torch.cpu, question, bool)() for name, question in _QUESTIONS.items()}
    return any(known.get(name, False) for name in instructions)
