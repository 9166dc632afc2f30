"""SIGTERM and Ctrl-C: a run ends between two steps, with its state saved."""

import os
import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any

from typing_extensions import Self

from rfdetr.console import is_heard
from rfdetr.launch import SECONDS_APART

STOPPING = (signal.SIGTERM, signal.SIGINT)


class StopSignals:
    """Notes the first signal, for the run to look at; a second one ends the process at once.

    Outside the main thread, where Python takes no handlers, signals do what they did.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._received_at = 0.0
        self._pid = os.getpid()
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in STOPPING}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def is_received(self) -> bool:
        return self.received is not None

    def _note(self, number: int, _: FrameType | None) -> None:
        if os.getpid() != self._pid:
            return  # a forked loader process; the run ends it when it ends
        if self.received is not None:
            if time.monotonic() - self._received_at > SECONDS_APART:
                os._exit(128 + number)
            return
        self.received, self._received_at = number, time.monotonic()
        if is_heard():  # not by print, which the signal may have interrupted
            os.write(2, b"rfdetr: stopping after this step and saving; once more ends at once\n")
