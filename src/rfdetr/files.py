"""Files written whole or not at all, and settings read from YAML."""

import json
import os
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from rfdetr.errors import ConfigError


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, then put it in place: a reader sees the old file or the new.

    Raises:
        OSError: the file could not be written (disk full, no permission); `path` is as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    # Not by tempfile, whose files only their owner can read; this one is as readable as any other.
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    try:
        write(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def cache_folder() -> Path:
    """Where what can be made again is kept: $RFDETR_CACHE, else rfdetr/ in the user's folder for such things."""
    own = os.environ.get("RFDETR_CACHE")
    return Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rfdetr"


def user_path(path: str | Path, setting: str) -> Path:
    """The path that a user has named, `~` expanded.

    Raises:
        ConfigError: this is none; names the setting.
    """
    if not isinstance(path, (str, Path)) or not str(path) or "\0" in str(path):
        raise ConfigError(f"{setting}: expected a path, got {path!r}")
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise ConfigError(f"{setting}: {path}: no such user") from None


def make_folder(path: Path, setting: str) -> None:
    """Make a folder for results, before there are any.

    Raises:
        ConfigError: it cannot be made, or not be written to; names the setting.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{setting}: {path} cannot be made a folder: {error.strerror}") from None
    if not os.access(path, os.W_OK):
        raise ConfigError(f"{setting}: cannot write to {path}")


def write_text(path: Path, text: str) -> None:
    # File names that are not text come as lone surrogates; escaped they are still JSON.
    write_atomically(path, lambda temporary: temporary.write_text(text, "utf-8", "backslashreplace"))


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_yaml(path: Path, value: Mapping[str, Any]) -> None:
    write_text(path, yaml.safe_dump(dict(value), sort_keys=False, allow_unicode=True))


class UniqueKeys(yaml.constructor.BaseConstructor):
    """For loaders of YAML: a key is a word and comes once; of two values, PyYAML would silently take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key that is no text", key.start_mark)
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} is there twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


class _Settings(UniqueKeys, yaml.SafeLoader):
    pass


def parse_yaml(text: str, loader: type[yaml.SafeLoader | yaml.BaseLoader]) -> Any:
    """Raises:
    ValueError: not YAML; the message has the line.
    """
    try:
        return yaml.load(text, loader)  # noqa: S506 - makes nothing but numbers, text, lists and mappings
    except yaml.reader.ReaderError as error:
        raise ValueError(f"not YAML in line {text[: error.position].count(chr(10)) + 1}: {error.reason}") from None
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f" in line {mark.line + 1}" if mark else ""
        raise ValueError(f"not YAML{line}: {getattr(error, 'problem', error)}") from None
    except RecursionError:
        raise ValueError("not YAML: brackets in brackets without end") from None


def read_settings(path: Path) -> dict[str, Any]:
    """Settings of a YAML file.

    Raises:
        ConfigError: no such file, not YAML or a name twice (with the line), or not a mapping of names to values.
    """
    try:
        settings = parse_yaml(path.read_text(encoding="utf-8"), _Settings)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not a text file in UTF-8") from None
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from None
    if settings is None:
        return {}
    if not isinstance(settings, dict) or not all(isinstance(name, str) for name in settings):
        raise ConfigError(f"{path}: expected lines `setting: value`, got a {type(settings).__name__}")
    return settings
