"""On which line of a TOML text a key stands: tomllib, which reads the values, does not tell.

Texts come here after tomllib took them, so that only the shape of valid TOML 1.0 matters.
"""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_right
from typing import Any

__all__ = ["KeyPath", "key_lines", "line_of", "spelled"]

KeyPath = tuple[str | int, ...]
"""Names of keys and places in arrays: ("guest", 0, "phase", 1, "steps")."""

_BLANK = re.compile(r"(?:[\s,]|#[^\n]*)*")
_PART = r"""(?:[A-Za-z0-9_-]+|"(?:[^"\\]|\\.)*"|'[^']*')"""
_KEY = re.compile(rf"[ \t]*{_PART}(?:[ \t]*\.[ \t]*{_PART})*[ \t]*")
_STRING = re.compile(
    r'"""(?:[^\\]|\\.)*?"""(?:"{0,2})'
    r"|'''.*?'''(?:'{0,2})"
    r'|"(?:[^"\\]|\\.)*"'
    r"|'[^']*'",
    re.DOTALL,
)
_SCALAR = re.compile(r"[^\n,\]}#]*")
_BARE = re.compile(r"[A-Za-z0-9_-]+")


def key_lines(text: str) -> dict[KeyPath, int]:
    """The line, from 1 on, of each key, table, and element of an array, where it is first named."""
    return _Scan(text).run()


def line_of(lines: dict[KeyPath, int], path: KeyPath) -> int:
    """The line of a key, or of the innermost table around it that is written down."""
    while path and path not in lines:
        path = path[:-1]
    return lines.get(path, 1)


def spelled(path: KeyPath) -> str:
    """A path as people write it."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            name = part if _BARE.fullmatch(part) else repr(part)
            text += f".{name}" if text else name
    return text


class _Scan:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._newlines = [match.start() for match in re.finditer("\n", text)]
        self._lines: dict[KeyPath, int] = {}
        self._elements: dict[KeyPath, int] = {}  # of arrays of tables, so far

    def run(self) -> dict[KeyPath, int]:
        table: KeyPath = ()
        while self._next():
            if self._text[self._at] == "[":
                table = self._header()
            else:
                self._pair(table)
        return self._lines

    def _next(self) -> str:
        """The character at hand once space, commas and comments are over; "" at the end."""
        self._take(_BLANK)
        return self._text[self._at : self._at + 1]

    def _take(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self._text, self._at)
        taken = match.group() if match else ""
        self._at += len(taken)
        return taken

    def _note(self, path: KeyPath) -> None:
        line = bisect_right(self._newlines, self._at - 1) + 1
        for end in range(1, len(path) + 1):
            self._lines.setdefault(path[:end], line)

    def _key(self) -> list[str]:
        return _parts(self._take(_KEY).strip(" \t"))

    def _header(self) -> KeyPath:
        brackets = 2 if self._text.startswith("[[", self._at) else 1
        start = self._at
        self._at += brackets
        *outer, name = self._key()
        end, self._at = self._at + brackets, start
        path: KeyPath = ()
        for part in outer:
            path = self._inside((*path, part))
        path = (*path, name)
        if brackets == 2:
            self._note(path)
            self._elements[path] = self._elements.get(path, 0) + 1
            path = self._inside(path)
        self._note(path)
        self._at = end
        return path

    def _inside(self, path: KeyPath) -> KeyPath:
        """A header names an array of tables where it means its last table."""
        return (*path, self._elements[path] - 1) if path in self._elements else path

    def _pair(self, table: KeyPath) -> None:
        start = self._at
        path = (*table, *self._key())
        end, self._at = self._at, start
        self._note(path)
        self._at = end + 1  # the =
        self._value(path)

    def _value(self, path: KeyPath) -> None:
        first = self._next()
        if first == "[":
            self._array(path)
        elif first == "{":
            self._at += 1
            while self._next() != "}":
                self._pair(path)
            self._at += 1
        else:
            self._take(_STRING if first in ('"', "'") else _SCALAR)

    def _array(self, path: KeyPath) -> None:
        self._at += 1
        place = 0
        while self._next() != "]":
            self._note((*path, place))
            self._value((*path, place))
            place += 1
        self._at += 1


def _parts(key: str) -> list[str]:
    """``a."b c".d`` taken apart."""
    if '"' not in key and "'" not in key:
        return [part.strip(" \t") for part in key.split(".")]
    parts: list[str] = []
    level: Any = tomllib.loads(f"{key} = 0")
    while isinstance(level, dict):
        ((name, level),) = level.items()
        parts.append(name)
    return parts
