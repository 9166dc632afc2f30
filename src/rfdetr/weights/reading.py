"""A weight file -> tensors and plain values, without running code from it."""

import argparse
import json
import pickle
import re
import types
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from rfdetr.errors import WeightsError

# Beside tensors and plain values, the settings of published files are one of these.
SAFE_GLOBALS: list[Any] = [argparse.Namespace, types.SimpleNamespace]
_AGAIN = "download or copy it again"


def read_file(path: Path, trust: bool = False) -> dict[str, Any]:
    """What a file of torch holds; of a safetensors file, its tensors as `model` beside its metadata.

    Only tensors and plain values are read; with `trust`, also what runs code when read.

    Raises:
        WeightsError: no such file, not one of weights, damaged, or one that needs trust; says what to do.
    """
    try:
        if path.is_dir():
            raise WeightsError(f"{path}: is a folder; name the weight file in it")
        if path.exists() and not path.is_file():
            raise WeightsError(f"{path}: is a pipe or a device, not a weight file")
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(512)
        # Its header is JSON, and the first 8 bytes are the length of that.
        if head[5:9] == b"\0\0\0{":
            return _read_safetensors(path)
        if problem := _obstacle(path, head, size):
            raise WeightsError(f"{path}: {problem}")
        return _read_torch(path, trust)
    except FileNotFoundError:
        raise WeightsError(f"{path}: no such file") from None
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error.strerror or error}") from None


def _obstacle(path: Path, head: bytes, size: int) -> str | None:
    """Why this cannot be weights, where its first bytes or its table of contents tell."""
    if not head:
        return f"is empty; {_AGAIN}"
    if head.startswith(b"version https://git-lfs"):
        return "is a pointer of Git LFS, not the weights; fetch them with `git lfs pull`"
    if head.lstrip()[:1] == b"<":
        return "is a web page, not weights; its address answered with a page. Download the file itself"
    if _is_text(head):
        return "is a text file, not weights"
    return _archive_obstacle(path, size) if head.startswith(b"PK") else None


def _is_text(head: bytes) -> bool:
    """Whether it is printable UTF-8, but for a character that the end of the sample may cut."""
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3:
            return False
        text = head[: error.start].decode("utf-8")
    return all(character.isprintable() or character.isspace() for character in text)


def _archive_obstacle(path: Path, size: int) -> str | None:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError):
        return f"is cut short or damaged; {_AGAIN}"
    names = {entry.filename.rpartition("/")[2] for entry in entries}
    if "constants.pkl" in names:
        return "is a TorchScript program, not a checkpoint"
    if "data.pkl" not in names:
        return "is a zip archive, but not one of weights. If there is a checkpoint in it, unpack that"
    # torch stores its tensors as they are. Others could unpack to any size.
    if any(entry.compress_type for entry in entries) or sum(entry.file_size for entry in entries) > size:
        return "is packed in a way that torch never writes; not opened"
    return None


def _read_safetensors(path: Path) -> dict[str, Any]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = {name: _parsed(text) for name, text in (file.metadata() or {}).items()}
            return {**metadata, "model": {name: file.get_tensor(name) for name in file.keys()}}  # noqa: SIM118  # no mapping
    except SafetensorError as error:
        raise WeightsError(f"{path}: damaged, or not a safetensors file; {_AGAIN}: {error}") from None


def _parsed(text: str) -> Any:
    """JSON, or the text itself."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _read_torch(path: Path, trust: bool) -> dict[str, Any]:
    try:
        # Opened here: torch would tell a format by the name of the file. Its warnings and the words of its errors
        # advise to read the file unsafely.
        with path.open("rb") as file, warnings.catch_warnings(), torch.serialization.safe_globals(SAFE_GLOBALS):
            warnings.simplefilter("ignore")
            content = torch.load(file, map_location="cpu", weights_only=not trust)
    except OSError:
        raise
    except Exception as error:  # a damaged file can trip torch's reader anywhere
        wanted = re.search(r"GLOBAL ([\w.]+)", str(error))
        if wanted and not trust and isinstance(error, pickle.UnpicklingError):
            raise WeightsError(
                f"{path}: wants to run code when it is read: it asks for {wanted[1]}, which weights do not need. "
                "If you trust where it comes from, open it with trust_checkpoint=True"
            ) from None
        first_line = str(error).split("\n", 1)[0]
        reason = f" ({type(error).__name__}: {first_line})" if trust else ""
        raise WeightsError(f"{path}: damaged, or not a checkpoint of torch{reason}; {_AGAIN}") from None
    if not isinstance(content, dict):
        raise WeightsError(f"{path}: not a checkpoint: it holds a {type(content).__name__}")
    return content
