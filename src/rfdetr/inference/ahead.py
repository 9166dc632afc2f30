"""Work done in threads before its results are asked for."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

THREADS = 2
"""Reading files in two keeps up with a network on few processors; each holds one picture at full size."""


def map_ahead(work: Callable[[T], R], items: Iterable[T], ahead: int) -> Iterator[R]:
    """`map`, with up to `ahead` items in work or done while the caller is busy. An error comes in its turn."""
    waiting: deque[Future[R]] = deque()
    pool = ThreadPoolExecutor(THREADS)
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
