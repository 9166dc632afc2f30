from http.client import IncompleteRead
from urllib.error import HTTPError, URLError

import pytest

from rfdetr.weights.web import reason


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (HTTPError("http://x", 404, "Not Found", None, None), "the server answers 404 Not Found"),  # type: ignore[arg-type]
        (URLError(ConnectionRefusedError(111, "Connection refused")), "Connection refused"),
        (URLError("no host given"), "no host given"),
        (URLError(TimeoutError("timed out")), "no answer for 5 s"),
        (TimeoutError("The read operation timed out"), "no answer for 5 s"),
        (PermissionError(13, "Permission denied", "/cache"), "/cache: Permission denied"),
        (ConnectionError("the connection was cut"), "the connection was cut"),
        (IncompleteRead(b"abc", 5), "IncompleteRead(3 bytes read, 5 more expected)"),
        (ConnectionResetError(), "ConnectionResetError"),
    ],
    ids=repr,
)
def test_the_reason_in_words(error: Exception, words: str) -> None:
    assert reason(error, timeout_s=5) == words
