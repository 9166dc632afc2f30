"""What Weights & Biases writes offline, and as much of its server as it takes to go on with a run."""

import json
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

from wandb.proto import wandb_internal_pb2


def read_records(file: Path) -> dict[str, list[Any]]:
    """By kind, the records of a run: a LevelDB log of protocol buffers."""
    content, at = file.read_bytes(), len(":W&B") + 3
    records: dict[str, list[Any]] = {}
    while at < len(content):
        _, length, kind = struct.unpack_from("<IHB", content, at)
        assert kind == 1, "a record in several parts"
        record = wandb_internal_pb2.Record.FromString(content[at + 7 : at + 7 + length])  # type: ignore[attr-defined]
        name = record.WhichOneof("record_type")
        records.setdefault(name, []).append(getattr(record, name))
        at += 7 + length
    return records


def as_dict(items: Iterable[Any]) -> dict[str, Any]:
    """The values of a configuration or of a row."""
    return {"/".join([item.key, *item.nested_key]).strip("/"): json.loads(item.value_json) for item in items}


@contextmanager
def serve_run(name: str, last_step: int) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The address of a server that has three rows of a run, and what is uploaded there: parts of files by name."""
    uploads: list[dict[str, Any]] = []
    run = {"id": "1", "name": name, "displayName": name, "project": {"name": "p", "entity": {"name": "me"}}}
    earlier = {
        **run,
        "historyLineCount": 3,
        "historyTail": json.dumps([json.dumps({"_step": last_step})]),
        "logLineCount": 0,
        "eventsLineCount": 0,
        "eventsTail": "[]",
        "summaryMetrics": "{}",
        "config": "{}",
        "tags": [],
        "wandbConfig": '{"t": {"1": [1]}}',
    }
    answers = {
        b"RunResumeStatus": {"model": {"id": "p", "name": "p", "bucket": earlier}},
        b"upsertBucket": {"upsertBucket": {"bucket": run, "inserted": False}},
        b"CreateRunFiles": {"createRunFiles": {"runID": "1", "uploadHeaders": [], "files": []}},
    }

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.path.endswith("file_stream"):
                uploads.append(json.loads(body).get("files", {}))
            data = next((answer for query, answer in answers.items() if query in body), {})
            content = json.dumps({"data": data}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", uploads
        server.shutdown()
