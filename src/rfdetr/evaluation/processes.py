"""The processes of a torch.distributed group, or this one alone."""

from typing import Any, TypeVar

import torch.distributed as dist

T = TypeVar("T")


def rank_and_world_size() -> tuple[int, int]:
    return (dist.get_rank(), dist.get_world_size()) if _is_group() else (0, 1)


def gathered(value: T) -> list[T]:
    """The values that all processes call this with, in the order of their ranks."""
    if not _is_group():
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def _is_group() -> bool:
    return dist.is_available() and dist.is_initialized()
