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
    """`map`, with up to `ahead` items in work or done while the caller is busy. Errors of both come in their turn."""
    waiting: deque[Future[R]] = deque()
    pool = ThreadPoolExecutor(THREADS)
    try:
        for result in _submitted(pool, work, items):
            waiting.append(result)
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _submitted(pool: ThreadPoolExecutor, work: Callable[[T], R], items: Iterable[T]) -> Iterator[Future[R]]:
    """An error of the items is a result like others, the last one."""
    try:
        for item in items:
            yield pool.submit(work, item)
    except Exception as error:  # whatever the caller's own code raises
        failed: Future[R] = Future()
        failed.set_exception(error)
        yield failed
