"""The lists of a large JSON object, entry by entry: annotation files of gigabytes are read in the memory of a few MB.

Not ijson: files that Python has written may hold NaN and Infinity, which that rejects for the whole file.
"""

import codecs
import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, TextIO

from rfdetr.errors import DatasetError

_CHARACTERS_AT_ONCE = 2**20
_BLANKS = " \t\r\n"
_KINDS = {list: "a list [...]", str: "a text", type(None): "null", bool: "true or false"}


def read_lists(file: Path, names: Collection[str]) -> Iterator[tuple[str, Any]]:
    """(name, entry) for every entry of the named lists of the object in a file; (name, None) where one begins.

    The encoding is found out as JSON's standard says; a byte order mark is fine. An entry that is null comes as `...`.

    Raises:
        DatasetError: the file cannot be read, or is not such an object; names file, line and column.
    """
    try:
        with file.open("rb") as raw:
            encoding = json.detect_encoding(raw.read(4))
            raw.seek(0)
            yield from _Reader(file, codecs.getreader(encoding)(raw)).lists(names)  # type: ignore[arg-type]
    except OSError as error:
        raise DatasetError(f"{file}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise DatasetError(f"{file}: not a text file in UTF-8") from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits; thousands of nested brackets
        raise DatasetError(f"{file}: cannot be read: {error}") from None


class _Reader:
    """A window that moves over the text of a file."""

    def __init__(self, file: Path, text: TextIO) -> None:
        self.file = file
        self._text = text
        self._window = ""
        self._at = 0
        self._line, self._column = 1, 1  # of the window's first character
        self._is_complete = False
        self._scan = json.JSONDecoder().raw_decode

    def lists(self, names: Collection[str]) -> Iterator[tuple[str, Any]]:
        if self._next() != "{":
            value = self._value()
            raise DatasetError(f"{self.file}: expected an object {{...}}, got {_KINDS.get(type(value), 'a number')}")
        self._at += 1
        seen: set[str] = set()
        while self._next() != "}" or seen:  # behind a comma another one has to come
            name = self._name()
            if name in names and name in seen:
                line, _ = self._place()
                raise DatasetError(f'{self.file}: the list "{name}" is there twice, again in line {line}. Join them')
            seen.add(name)
            if name in names and self._next() == "[":
                self._at += 1
                yield name, None
                yield from self._entries(name)
            else:
                self._value()
            if self._next() == "}":
                break
            self._take(",")
        self._at += 1
        if self._next():
            raise self._error("Extra data")

    def _name(self) -> str:
        """The name of the next value, up to its colon."""
        name = self._value() if self._next() == '"' else None
        if not isinstance(name, str):
            raise self._error("Expecting property name enclosed in double quotes")
        self._take(":")
        return name

    def _entries(self, name: str) -> Iterator[tuple[str, Any]]:
        if self._next() == "]":
            self._at += 1
            return
        while True:
            if self._at > _CHARACTERS_AT_ONCE:
                self._forget()
            value = self._value()
            yield name, ... if value is None else value
            if self._next() == "]":
                self._at += 1
                return
            self._take(",")

    def _value(self) -> Any:
        """The value that begins here."""
        self._next()
        wanted = _CHARACTERS_AT_ONCE
        while True:
            try:
                value, end = self._scan(self._window, self._at)
            except json.JSONDecodeError as error:
                if self._is_complete:
                    self._at = error.pos
                    raise self._error(error.msg) from None
            else:
                # A number at the end of the window may go on behind it.
                if end < len(self._window) or self._is_complete:
                    self._at = end
                    return value
            self._read(wanted)
            wanted *= 2

    def _next(self) -> str:
        """The next character that is not blank; at the end of the file, none."""
        while True:
            window, at = self._window, self._at
            while at < len(window) and window[at] in _BLANKS:
                at += 1
            self._at = at
            if at < len(window):
                return window[at]
            if self._is_complete:
                return ""
            self._forget()
            self._read(_CHARACTERS_AT_ONCE)

    def _take(self, expected: str) -> None:
        if self._next() != expected:
            raise self._error(f"Expecting '{expected}' delimiter")
        self._at += 1

    def _read(self, characters: int) -> None:
        part = self._text.read(characters)
        self._window += part
        self._is_complete = not part

    def _forget(self) -> None:
        """Drop what is done with."""
        self._line, self._column = self._place()
        self._window, self._at = self._window[self._at :], 0

    def _place(self) -> tuple[int, int]:
        lines = self._window.count("\n", 0, self._at)
        if not lines:
            return self._line, self._column + self._at
        return self._line + lines, self._at - self._window.rindex("\n", 0, self._at)

    def _error(self, message: str) -> DatasetError:
        line, column = self._place()
        what = "the file ends too early" if self._is_complete and self._at >= len(self._window) else message
        return DatasetError(f"{self.file}: not JSON: {what} in line {line}, column {column}")
