"""Batches that are made in other processes, with a note of the images that could not be read."""

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from multiprocessing.reduction import ForkingPickler
from multiprocessing.sharedctypes import RawValue
from multiprocessing.util import Finalize
from types import ModuleType
from typing import Any, NamedTuple, Protocol

import torch
from torch.utils.data import DataLoader, Dataset

from rfdetr.data.collation import Sample
from rfdetr.data.unreadable import Unreadable
from rfdetr.errors import RFDETRError, TrainingError


class Samples(Protocol):
    """What batches are made of."""

    def readable(self, requests: Sequence[Any]) -> tuple[list[Sample], Unreadable]:
        """Samples for the requests, and which images could not be read on the way.

        Raises:
            RFDETRError: the batch cannot be made.
        """
        ...


class Loader(DataLoader[Any]):
    """A DataLoader of collated samples; a batch without any is left out.

    It leaves torch's global random state alone, whatever the number of workers. Where these are not forked, they do not
    run the program that starts them once more, unless the samples need what it defines.

    Raises:
        RFDETRError: while iterating, where samples cannot be made.
    """

    def __init__(self, samples: Samples, collate: Callable[[list[Sample]], Any], **options: Any) -> None:
        is_over = RawValue("b", 0)
        initialize = partial(_ignore_signals, is_over)
        batches = _Batches(samples, collate)
        super().__init__(batches, collate_fn=_as_is, generator=torch.Generator(), worker_init_fn=initialize, **options)
        Finalize(self, setattr, (is_over, "value", 1), exitpriority=0)
        self._unreadable: Unreadable = {}

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]  # nobody needs torch's own iterator class
        for loaded in self._started():
            if isinstance(loaded, RFDETRError):
                try:
                    raise loaded
                finally:
                    del loaded  # a cycle through the traceback would keep the workers alive: seconds at exit
            self._unreadable |= loaded.unreadable
            if loaded.batch is not None:
                yield loaded.batch

    def _started(self) -> Iterator[Any]:
        context = self.multiprocessing_context or multiprocessing
        if self.num_workers == 0 or context.get_start_method() == "fork" or self._needs_program:
            return super().__iter__()
        with _program_hidden():
            return super().__iter__()

    @cached_property
    def _needs_program(self) -> bool:
        """Whether something in the samples, as a function that augments, is defined in the program that was started."""
        return b"__main__" in bytes(ForkingPickler.dumps(self.dataset))

    @property
    def has_unreadable(self) -> bool:
        return bool(self._unreadable)

    def take_unreadable(self) -> Unreadable:
        """The images that could not be read for the batches that have come, since this was last asked."""
        taken, self._unreadable = self._unreadable, {}
        return taken


class _Loaded(NamedTuple):
    batch: Any
    """None: of no sample."""
    unreadable: Unreadable


class _Batches(Dataset[Any]):
    """Collated batches, or the error as a value: of a worker's exception, torch makes its traceback the message."""

    def __init__(self, samples: Samples, collate: Callable[[list[Sample]], Any]) -> None:
        self.samples = samples
        self.collate = collate

    def __getitems__(self, requests: Sequence[Any]) -> _Loaded | RFDETRError:
        try:
            samples, unreadable = self.samples.readable(requests)
        except RFDETRError as error:
            return error
        return _Loaded(self.collate(samples) if samples else None, unreadable)


@contextmanager
def _program_hidden() -> Iterator[None]:
    """Of the program that was started, processes that start within do not know; else they would run it first.

    One without `if __name__ == "__main__"` would then train in each of them.
    """
    program = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = program


@contextmanager
def lost_workers_named() -> Iterator[None]:
    """Within, a loader process that ends by itself is an error of ours; torch raises its own at any moment.

    Raises:
        TrainingError: that is so.
    """
    try:
        yield
    except RuntimeError as error:
        reason = str(error).partition(". ")[0]
        if not reason.startswith("DataLoader worker"):
            raise
        raise TrainingError(
            f"a process that loads images has ended: {reason}. If it has left messages, they are above. If not, memory "
            "may have been short: take a smaller num_workers, or num_workers=0. "
            "An augment function or a dataset that is defined in a script needs the rest of the script below "
            "`if __name__ == '__main__':`"
        ) from None


def _ignore_signals(is_over: Any, _: int) -> None:
    """Ctrl-C and SIGTERM often reach all processes of a program; the one that trains decides when the loaders end.

    When it exits, multiprocessing sends SIGTERM to those that are left, and waits for them without end.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0) if is_over.value else None)


def _as_is(batch: Any) -> Any:
    return batch
