import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest

from rfdetr.data.pillow import QUIET


def test_nothing_is_warned_of_while_a_file_is_read_and_everything_afterwards() -> None:
    with QUIET:
        warnings.warn("an oddity of the outer file", stacklevel=1)
        with QUIET:
            warnings.warn("an oddity of the inner one", stacklevel=1)
        warnings.warn("another of the outer one", stacklevel=1)
    with pytest.raises(UserWarning, match="not of a file"):
        warnings.warn("not of a file", stacklevel=1)


def test_filters_that_came_later_do_not_bring_the_warnings_back() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with QUIET:
            warnings.warn("an oddity", stacklevel=1)


def test_other_threads_may_warn_meanwhile() -> None:
    inside, done = threading.Event(), threading.Event()

    def read() -> None:
        with QUIET:
            inside.set()
            assert done.wait(timeout=10)
            warnings.warn("an oddity", stacklevel=1)

    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(read)
        assert inside.wait(timeout=10)
        with pytest.raises(UserWarning, match="not of a file"):
            warnings.warn("not of a file", stacklevel=1)
        done.set()
        reading.result()


def test_contexts_of_warnings_that_overlap_leave_them_on() -> None:
    """As where a thread reads a file and the caller, beside it, looks for warnings of their own."""
    QUIET.__enter__()
    with warnings.catch_warnings():
        QUIET.__exit__(None, None, None)
    with pytest.raises(UserWarning, match="not of a file"):
        warnings.warn("not of a file", stacklevel=1)
