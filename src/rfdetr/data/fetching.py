"""Files at addresses that fsspec knows (s3://, gs://, http://, ...), fetched once and kept in the cache folder."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock

from rfdetr.errors import DatasetError
from rfdetr.files import cache_folder, write_atomically

_ATTEMPTS, _PAUSE = 3, 1.0  # seconds before the second attempt; then four times as long
_AT_ONCE = 2**22
_UNSAFE = '<>:"|?*\\\0'


def is_address(dataset_dir: object) -> bool:
    return isinstance(dataset_dir, str) and "://" in dataset_dir


def local_path(address: str) -> Path | None:
    """The folder that a file:// address means; None for other addresses."""
    protocol, _, path = address.partition("://")
    return Path(path) if protocol in ("file", "local") else None


@dataclass(frozen=True)
class RemoteFile:
    """A file that does not change: another content has another digest."""

    address: str
    bytes: int
    digest: str

    @property
    def copy(self) -> Path:
        """Where it is kept."""
        folder, _, name = self.address.rpartition("/")
        stem, dot, suffix = name.partition(".")
        return _mirror(folder) / f"{stem}.{self.digest}{dot}{suffix}"

    def local(self) -> Path:
        """The copy, fetched if it is not there; processes that share the disk fetch it once.

        Raises:
            DatasetError: it cannot be fetched, or is not what the index says; names the address.
        """
        copy = self.copy
        if not copy.exists():
            copy.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(copy.with_name(f"{copy.name}.lock")):
                if not copy.exists():
                    write_atomically(copy, self._fetch)
        return copy

    def _fetch(self, target: Path) -> None:
        def fetch(system: Any, path: str) -> None:
            digest = blake2b(digest_size=16)
            with system.open(path, "rb") as source, target.open("wb") as file:
                _copy(source, file, digest.update)
            if target.stat().st_size != self.bytes or digest.hexdigest() != self.digest:
                raise DatasetError(
                    f"{self.address}: is not the file that its index describes ({target.stat().st_size} bytes; "
                    f"expected {self.bytes}). Copy the whole dataset there anew"
                )

        _attempted(self.address, fetch)


def _copy(source: BinaryIO, target: BinaryIO, observe: Callable[[bytes], None]) -> None:
    while part := source.read(_AT_ONCE):
        observe(part)
        target.write(part)


def fetch_current(address: str) -> Path | None:
    """A copy of a file as it is now; its time of modification stays while its content does. None: no such file.

    Raises:
        DatasetError: it cannot be fetched; names the address.
    """
    content = _attempted(address, lambda system, path: system.cat_file(path))
    if content is None:
        return None
    folder, _, name = address.rpartition("/")
    copy = _mirror(folder) / name
    copy.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(copy.with_name(f"{name}.lock")):
        if not copy.exists() or copy.read_bytes() != content:
            write_atomically(copy, lambda temporary: temporary.write_bytes(content))
    return copy


def _mirror(folder: str) -> Path:
    """Where files of a remote folder are kept: its address can be read in the path."""
    parts = folder.replace("://", "/").split("/")
    safe = ["".join("_" if letter in _UNSAFE else letter for letter in part) for part in parts if part.strip(".")]
    return cache_folder().joinpath("remote", *safe)


def _attempted(address: str, fetch: Callable[[Any, str], Any]) -> Any:
    """What `fetch` makes of a file system and a path in it; None: no such file.

    Raises:
        DatasetError: names the address.
    """
    system, path = _file_system(address)
    reason: Exception | None = None
    for attempt in range(_ATTEMPTS):
        if attempt:
            time.sleep(_PAUSE * 4 ** (attempt - 1))
        try:
            return fetch(system, path)
        except FileNotFoundError:
            return None
        except DatasetError:
            raise
        except Exception as error:  # every protocol has exceptions of its own
            reason = error
    raise DatasetError(f"{address}: cannot be fetched: {str(reason) or type(reason).__name__}")


def _file_system(address: str) -> tuple[Any, str]:
    try:
        # It takes as long to load as all that is needed to read a folder.
        system, path = import_module("fsspec").core.url_to_fs(address)
    except ImportError as error:
        raise DatasetError(f"{address}: the package for this protocol is missing: {error}") from None
    except ValueError as error:
        raise DatasetError(f"{address}: {error}. Known are s3://, gs://, az://, http:// and others of fsspec") from None
    return system, str(path)
