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


@pytest.mark.parametrize(
    ("first", "second", "status"), [("SIGTERM", "SIGTERM", 143), ("SIGINT", "SIGTERM", 143), ("SIGTERM", "SIGINT", 130)]
)
def test_a_second_signal_ends_the_process_at_once(first: str, second: str, status: int) -> None:
    program = f"""
import signal
from rfdetr.training.signals import StopSignals
with StopSignals():
    try:
        signal.raise_signal(signal.{first})
        signal.raise_signal(signal.{second})
    finally:
        print("cleaning up")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)  # noqa: S603
    assert done.returncode == status
    assert done.stdout == ""
