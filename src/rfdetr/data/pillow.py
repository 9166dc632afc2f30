"""What is otherwise while a file is read: any number of threads may do so."""

import warnings
from threading import Lock, local
from types import TracebackType

from PIL import Image


class _Quiet(local):
    """A context without warnings of the thread that is in it.

    `warnings.catch_warnings` is for one thread: it puts back the filters that it found, and where those of two threads
    overlap, what was meant for one of them stays for the whole program. This leaves a filter that nobody else notices.
    """

    depth = 0

    def __enter__(self) -> None:
        if not any(entry[2] is _WhileQuiet for entry in warnings.filters[:1]):  # others came later
            warnings.simplefilter("ignore", _WhileQuiet)
        self.depth += 1

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.depth -= 1


class _OfThisThread(type):
    def __subclasscheck__(cls, category: type) -> bool:
        return QUIET.depth > 0


class _WhileQuiet(Warning, metaclass=_OfThisThread):
    """To a filter, the base of all warnings in threads that are within QUIET, and of none in others."""


class _Unlimited:
    """Without Pillow's limit for all of the program, from the first thread that enters until the last one leaves."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._inside = 0

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            self._inside += 1

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                Image.MAX_IMAGE_PIXELS = self._limit


QUIET = _Quiet()
"""No warnings: Pillow's, for one, are about oddities (metadata, large sizes) of files that it can read all the same."""
UNLIMITED = _Unlimited()
"""For those who look at the size of a picture themselves."""
