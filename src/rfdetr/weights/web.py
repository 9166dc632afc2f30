"""One HTTP request, and in words why it failed."""

from collections.abc import Mapping
from http.client import HTTPResponse
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

# The longest silence of a server.
TIMEOUT_S = 30.0


def open_url(url: str, headers: Mapping[str, str] | None = None, timeout_s: float = TIMEOUT_S) -> HTTPResponse:
    """The answer to a GET request; `url` begins with http:// or https://.

    Raises:
        URLError: no connection, or (as HTTPError) an answer like 404.
        OSError: silence longer than `timeout_s`; reading the answer raises it too.
        http.client.HTTPException: the answer is not HTTP, or, when read, was cut.
    """
    request = Request(url, headers={"User-Agent": "rfdetr", **(headers or {})})  # noqa: S310 - not file:// either
    response: HTTPResponse = urlopen(request, timeout=timeout_s)  # noqa: S310
    return response


def reason(error: Exception, timeout_s: float = TIMEOUT_S) -> str:
    if isinstance(error, HTTPError):
        return f"the server answers {error.code} {error.reason}"
    cause = error.reason if isinstance(error, URLError) else error
    if isinstance(cause, TimeoutError):
        return f"no answer for {timeout_s:g} s"
    if isinstance(cause, OSError) and cause.strerror:
        return f"{cause.filename}: {cause.strerror}" if cause.filename else cause.strerror
    return str(cause) or type(cause).__name__
