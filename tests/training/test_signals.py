import signal
import subprocess
import sys
import threading

import pytest

from rfdetr.training.signals import STOPPING, StopSignals


@pytest.mark.parametrize("number", STOPPING, ids=lambda number: number.name)
def test_a_signal_is_noted(number: signal.Signals, capfd: pytest.CaptureFixture[str]) -> None:
    with StopSignals() as signals:
        assert not signals.is_received()
        signal.raise_signal(number)
        assert signals.is_received()
        assert signals.received == number
    assert capfd.readouterr().err == "rfdetr: stopping after this step and saving; once more ends at once\n"


def test_the_handlers_from_before_come_back() -> None:
    before = [signal.getsignal(number) for number in STOPPING]
    with pytest.raises(ValueError, match="of the run"), StopSignals():
        raise ValueError("of the run")
    assert [signal.getsignal(number) for number in STOPPING] == before


def test_outside_the_main_thread_signals_do_what_they_did() -> None:
    before = [signal.getsignal(number) for number in STOPPING]
    seen = []

    def run() -> None:
        with StopSignals() as signals:
            seen.append(([signal.getsignal(number) for number in STOPPING], signals.is_received()))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [(before, False)]


def test_signals_close_together_are_one(capfd: pytest.CaptureFixture[str]) -> None:
    """`timeout`, for one, signals its child and then its group."""
    with StopSignals() as signals:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        assert signals.is_received()
    assert len(capfd.readouterr().err.splitlines()) == 1


SECOND = """
import os, signal, sys, time
from rfdetr.launch import SECONDS_APART
from rfdetr.training.signals import StopSignals

for names in sys.argv[1:]:
    process = os.fork()
    if process == 0:
        with StopSignals():
            try:
                for name in names.split():
                    signal.raise_signal(signal.Signals[name])
                    time.sleep(SECONDS_APART + 0.1)
            finally:
                print("cleaned up", flush=True)
    print(names, os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)
"""


def test_a_second_signal_ends_the_process_at_once() -> None:
    ends = {"SIGTERM SIGTERM": 143, "SIGINT SIGTERM": 143, "SIGTERM SIGINT": 130}
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", SECOND, *ends], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == [f"{names} {status}" for names, status in ends.items()]
