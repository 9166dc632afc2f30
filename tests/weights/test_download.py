"""Downloads from a real HTTP server on the loopback interface, which misbehaves as told."""

import hashlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from rfdetr.errors import ConfigError, WeightsError
from rfdetr.weights.download import ATTEMPTS, fetch, resolve
from rfdetr.weights.registry import PublishedFile

CONTENT = bytes(range(256)) * 4000
FILE = PublishedFile(
    "tiny.pth", "folder/tiny-coco.pth", hashlib.md5(CONTENT, usedforsecurity=False).hexdigest(), "tiny"
)


@dataclass
class Behaviour:
    """What the server does, and what it was asked."""

    content: bytes = CONTENT
    cuts: list[int] = field(default_factory=list)  # bytes sent before each of the first answers is cut off
    takes_ranges: bool = True
    sends_length: bool = True
    silence_s: float = 0.0  # before the answer
    requests: list[str] = field(default_factory=list)


class Server(ThreadingHTTPServer):
    daemon_threads = True
    behaviour: Behaviour

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        behaviour = self.server.behaviour
        wanted = self.headers.get("Range")
        behaviour.requests.append(wanted or "all")
        time.sleep(behaviour.silence_s)
        if self.path != f"/{FILE.path}":
            return self.send_error(404, "Not Found")
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and behaviour.takes_ranges else 0
        if wanted and behaviour.takes_ranges and start >= len(behaviour.content):
            return self.send_error(416)
        body = behaviour.content[start:]
        self.send_response(206 if start else 200)
        if behaviour.sends_length:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        sent = body[: behaviour.cuts.pop(0)] if behaviour.cuts else body
        self.wfile.write(sent)
        return None

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name in the base class
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as server:
        server.behaviour = Behaviour()
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        monkeypatch.setenv("RFDETR_MIRROR", server.url)
        monkeypatch.setenv("no_proxy", "*")
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RF_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


def test_a_file_is_downloaded_once(server: Server, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fetch(FILE) == cache / "tiny.pth"
    assert fetch(FILE).read_bytes() == CONTENT
    assert server.behaviour.requests == ["all"]
    assert names_in(cache) == ["tiny.pth"]
    assert capsys.readouterr().out == f"downloading {server.url}/folder/tiny-coco.pth to {cache}/tiny.pth\n"


def test_a_file_of_the_users_is_kept_and_used(server: Server, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cache.mkdir()
    (cache / "tiny.pth").write_bytes(b"mine")
    assert fetch(FILE).read_bytes() == b"mine"
    assert server.behaviour.requests == []
    assert capsys.readouterr().err == (
        f"rfdetr: warning: {cache}/tiny.pth is not the published tiny.pth (its md5 differs). "
        "It is used as it is; delete it to download\n"
    )


def test_a_cut_connection_is_taken_up_where_it_ended(server: Server, cache: Path) -> None:
    server.behaviour.cuts = [300_000, 100_000]
    assert fetch(FILE).read_bytes() == CONTENT
    assert server.behaviour.requests == ["all", "bytes=300000-", "bytes=400000-"]
    assert names_in(cache) == ["tiny.pth"]


def test_a_connection_cut_again_and_again_leaves_what_arrived_for_the_next_call(server: Server, cache: Path) -> None:
    server.behaviour.cuts = [1000] * ATTEMPTS
    with pytest.raises(WeightsError, match=r"the connection was cut after 4,000 of 1,024,000 bytes"):
        fetch(FILE)
    assert names_in(cache) == ["tiny.pth.part"]
    assert fetch(FILE).read_bytes() == CONTENT
    assert server.behaviour.requests[-1] == "bytes=4000-"


@pytest.mark.parametrize(
    ("part", "takes_ranges", "requests"),
    [
        pytest.param(CONTENT[:5000], True, ["bytes=5000-"], id="the beginning is completed"),
        pytest.param(CONTENT[:5000], False, ["bytes=5000-"], id="a server without ranges sends all"),
        pytest.param(CONTENT, True, ["bytes=1024000-"], id="all but the renaming was done"),
        pytest.param(b"of an older file", True, ["bytes=16-", "all"], id="another file's part is thrown away"),
        pytest.param(CONTENT + b"more", True, ["bytes=1024004-", "all"], id="a part too long is thrown away"),
        pytest.param(b"", True, ["all"], id="nothing had arrived"),
    ],
)
def test_a_part_of_an_earlier_call(
    part: bytes, takes_ranges: bool, requests: list[str], server: Server, cache: Path
) -> None:
    cache.mkdir()
    (cache / "tiny.pth.part").write_bytes(part)
    server.behaviour.takes_ranges = takes_ranges
    assert fetch(FILE).read_bytes() == CONTENT
    assert server.behaviour.requests == requests
    assert names_in(cache) == ["tiny.pth"]


def test_without_a_length_the_digest_decides(server: Server) -> None:
    server.behaviour.sends_length = False
    server.behaviour.cuts = [300_000]
    with pytest.raises(WeightsError, match="what arrived is not the published file"):
        fetch(FILE)
    assert fetch(FILE).read_bytes() == CONTENT


def test_a_wrong_file_is_not_kept(server: Server, cache: Path) -> None:
    server.behaviour.content = b"<html>please log in</html>"
    md5 = hashlib.md5(server.behaviour.content, usedforsecurity=False).hexdigest()
    with pytest.raises(WeightsError) as error:
        fetch(FILE)
    assert str(error.value) == (
        "tiny.pth: cannot be fetched: what arrived is not the published file: "
        f"md5 {md5}, expected {FILE.md5}\n"
        f"  address: {server.url}/folder/tiny-coco.pth\n"
        f"  Try again, or download it by other means and put it at {cache}/tiny.pth,\n"
        "  or train from scratch with pretrain_weights=None"
    )
    assert names_in(cache) == []


def test_a_file_that_is_not_there(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RFDETR_MIRROR", f"{server.url}/elsewhere/")
    with pytest.raises(WeightsError, match=r"the server answers 404 Not Found\n  address: .*/elsewhere/folder/tiny-"):
        fetch(FILE)
    assert server.behaviour.requests == ["all"]


def test_a_silent_server_is_given_up(server: Server) -> None:
    server.behaviour.silence_s = 0.3
    with pytest.raises(WeightsError, match=r"no answer for 0\.05 s"):
        fetch(FILE, timeout_s=0.05)


def test_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("RFDETR_MIRROR", f"http://127.0.0.1:{closed.getsockname()[1]}")
        monkeypatch.setenv("no_proxy", "*")
        with pytest.raises(WeightsError, match="cannot be fetched: Connection refused"):
            fetch(FILE)


def test_a_cache_that_cannot_be_written(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("RF_HOME", str(tmp_path / "file" / "cache"))
    with pytest.raises(WeightsError, match=r"cannot be fetched: .*: Not a directory"):
        fetch(FILE)


def test_a_mirror_that_is_no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RFDETR_MIRROR", "/mnt/weights")
    with pytest.raises(ConfigError, match="RFDETR_MIRROR must begin with https:// or http://, got '/mnt/weights'"):
        fetch(FILE)


FETCH = f"""
from rfdetr.weights.download import fetch
from rfdetr.weights.registry import PublishedFile
print(fetch({FILE!r}).stat().st_size)
"""


def fetching_process() -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", FETCH], stdout=subprocess.PIPE, text=True)  # noqa: S603


def wait_for_requests(server: Server, count: int) -> None:
    deadline = time.monotonic() + 30
    while len(server.behaviour.requests) < count:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_two_processes_at_once_download_once(server: Server, cache: Path) -> None:
    server.behaviour.silence_s = 1.0
    first, second = fetching_process(), fetching_process()
    assert [process.communicate(timeout=60)[0].splitlines()[-1] for process in (first, second)] == ["1024000"] * 2
    assert server.behaviour.requests == ["all"]
    assert names_in(cache) == ["tiny.pth"]


@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")
def test_a_killed_process_does_not_hold_up_the_next(server: Server) -> None:
    server.behaviour.silence_s = 1.0
    with fetching_process() as killed:
        wait_for_requests(server, 1)
        killed.send_signal(signal.SIGKILL)
        killed.communicate()
    server.behaviour.silence_s = 0.0
    assert fetch(FILE).read_bytes() == CONTENT


class TestResolve:
    def test_a_file_by_path(self, tmp_path: Path) -> None:
        (tmp_path / "own.pth").touch()
        assert resolve(tmp_path / "own.pth", "nano") == tmp_path / "own.pth"
        assert resolve(str(tmp_path / "own.pth"), "nano") == tmp_path / "own.pth"

    def test_a_bare_name_is_looked_for_here_and_then_in_the_cache(
        self, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        cache.mkdir()
        (cache / "own.pth").touch()
        assert resolve("own.pth", "nano") == cache / "own.pth"
        (tmp_path / "own.pth").touch()
        assert resolve("own.pth", "nano") == Path("own.pth")

    @pytest.mark.parametrize(
        ("weights", "name"), [("published", "rf-detr-nano.pth"), ("rf-detr-base-2.pth", "rf-detr-base-2.pth")]
    )
    def test_published_files_come_from_the_cache(self, weights: str, name: str, cache: Path) -> None:
        cache.mkdir()
        (cache / name).touch()
        assert resolve(weights, "nano") == cache / name

    def test_a_missing_file_is_named_with_what_is_allowed(
        self, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        with pytest.raises(WeightsError) as error:
            resolve("rf-detr-nana.pth", "nano")
        assert str(error.value) == (
            f"pretrain_weights: no file rf-detr-nana.pth here ({tmp_path}) or in {cache}. "
            "Did you mean 'rf-detr-nano.pth'? Allowed: a file, the name of a published file, "
            "'published' for the COCO weights of this size, or None to train from scratch"
        )

    def test_a_missing_path(self, tmp_path: Path) -> None:
        with pytest.raises(WeightsError, match=rf"^pretrain_weights: no file {tmp_path}/x/mine.ckpt. Allowed: a file,"):
            resolve(tmp_path / "x" / "mine.ckpt", "nano")

    def test_a_folder(self, tmp_path: Path) -> None:
        with pytest.raises(WeightsError, match=r"is a folder\. Name the weight file in it"):
            resolve(tmp_path, "nano")
