"""Weight files by name: the user's own, or a published one, fetched once, resumed, verified and put in place whole."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError, URLError

from filelock import FileLock, Timeout
from tqdm import tqdm

from rfdetr.config.base import suggestion
from rfdetr.console import say, warn
from rfdetr.errors import ConfigError, WeightsError
from rfdetr.files import user_path
from rfdetr.weights.registry import BASE_ADDRESS, PUBLISHED, PublishedFile, cache_dir, default_file
from rfdetr.weights.web import TIMEOUT_S, open_url, reason

# A cut connection is taken up again where it ended, this often in one call.
ATTEMPTS = 4
BLOCK = 1 << 20


def resolve(weights: str | Path, size: str) -> Path:
    """The file meant by `pretrain_weights`: `published` (the weights of `size`), a published file's name, or a path.

    Raises:
        WeightsError: there is no such file, or it cannot be downloaded.
        ConfigError: this is not a path.
    """
    if weights == "published":
        return fetch(default_file(size))
    if str(weights) in PUBLISHED:
        return fetch(PUBLISHED[str(weights)])
    path = user_path(weights, "pretrain_weights")
    is_bare = path.name == str(weights)
    try:
        for candidate in (path, cache_dir() / path) if is_bare else (path,):
            if candidate.is_file():
                return candidate
    except OSError as error:  # too long a name
        raise WeightsError(f"pretrain_weights: {path}: {error.strerror}") from None
    raise WeightsError(_nothing_there(path, is_bare))


def _nothing_there(path: Path, is_bare: bool) -> str:
    if path.is_dir():
        return f"pretrain_weights: {path} is a folder. Name the weight file in it"
    places = f" here ({Path.cwd()}) or in {cache_dir()}" if is_bare else ""
    near = suggestion(path.name, list(PUBLISHED))
    return (
        f"pretrain_weights: no file {path}{places}.{near} "
        "Allowed: a file, the name of a published file, 'published' for the COCO weights of this size, "
        "or None to train from scratch"
    )


def fetch(file: PublishedFile, timeout_s: float = TIMEOUT_S) -> Path:
    """The file in the cache, downloaded if it is not there. What the user put there is used, and never overwritten.

    `timeout_s` is the longest silence of the server. RFDETR_MIRROR names another address with the same paths below.

    Raises:
        WeightsError: it cannot be downloaded or read; says from where it comes and where to put it by hand.
        ConfigError: RFDETR_MIRROR is no address.
    """
    path, url = cache_dir() / file.name, _address(file)
    try:
        if path.is_file():
            _warn_if_changed(path, file)
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
        with _one_process_at_a_time(path):
            if not path.is_file():
                _download(file, url, path, timeout_s)
    except (OSError, HTTPException) as error:
        raise WeightsError(
            f"{file.name}: cannot be fetched: {reason(error, timeout_s)}\n"
            f"  address: {url}\n"
            f"  Try again, or download it by other means and put it at {path},\n"
            "  or train from scratch with pretrain_weights=None"
        ) from None
    return path


def _warn_if_changed(path: Path, file: PublishedFile) -> None:
    # Reading it all costs 0.2 s per 100 MB, and who loads it next finds it in the page cache.
    if _md5(path) != file.md5:
        warn(f"{path} is not the published {file.name} (its md5 differs). It is used as it is; delete it to download")


def _address(file: PublishedFile) -> str:
    base = os.environ.get("RFDETR_MIRROR") or BASE_ADDRESS
    if not base.startswith(("https://", "http://")):
        raise ConfigError(f"RFDETR_MIRROR must begin with https:// or http://, got {base!r}")
    return f"{base.rstrip('/')}/{file.path}"


@contextmanager
def _one_process_at_a_time(path: Path) -> Iterator[None]:
    """Hold the operating system's lock on a file beside `path`; it ends with its process, however that ends."""
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        say(f"waiting for another process that downloads {path.name}")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _download(file: PublishedFile, url: str, path: Path, timeout_s: float) -> None:
    part = path.with_name(f"{path.name}.part")
    say(f"downloading {url} to {path}")
    for attempts_left in reversed(range(ATTEMPTS)):
        is_resumed = part.is_file()
        try:
            _append(url, part, timeout_s)
        except URLError:  # no connection, or an answer like 404: asking again at once is of no use
            raise
        except (OSError, HTTPException):
            if not attempts_left:
                raise
            continue
        md5 = _md5(part)
        if md5 == file.md5:
            part.replace(path)
            return
        part.unlink()
        # The beginning may have been another file's; what was sent in one piece is what the server has.
        if not (is_resumed and attempts_left):
            raise OSError(f"what arrived is not the published file: md5 {md5}, expected {file.md5}")


def _append(url: str, part: Path, timeout_s: float) -> None:
    """Add to `part` what it lacks of the file at `url`, or start over where the server cannot continue."""
    have = part.stat().st_size if part.is_file() else 0
    try:
        response = open_url(url, {"Range": f"bytes={have}-"} if have else None, timeout_s)
    except HTTPError as error:
        if have and error.code == 416:  # nothing follows the bytes we have; whether they are right, the digest says
            return
        raise
    with response:
        is_resumed = response.status == 206
        start = have if is_resumed else 0
        length = response.headers["Content-Length"]
        end = None if length is None else start + int(length)
        # disable=None: no bar where nobody watches
        bar = tqdm(desc=part.stem, initial=start, total=end, unit="B", unit_scale=True, disable=None)
        with part.open("ab" if is_resumed else "wb") as out, bar:
            while block := response.read1(BLOCK):
                bar.update(out.write(block))
            out.flush()
            os.fsync(out.fileno())
            if end is not None and out.tell() < end:  # http.client takes a cut connection for the end of the file
                raise ConnectionError(f"the connection was cut after {out.tell():,} of {end:,} bytes")


def _md5(path: Path) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()
