"""Writes TOML, and remembers on which line it put each key."""

from __future__ import annotations

import json
import re
from typing import Any

Path = tuple[str | int, ...]


class Writer:
    """Tables and arrays of tables under headers; what is inside other arrays, inline.

    Attributes:
        lines: the line of each key and element.
    """

    def __init__(self, values: dict[str, Any]) -> None:
        self.lines: dict[Path, int] = {}
        self._text: list[str] = []
        self._table((), (), values)

    @property
    def text(self) -> str:
        return "".join(f"{line}\n" for line in self._text)

    def _put(self, path: Path, line: str) -> None:
        self._text.append(line)
        self.lines.setdefault(path, len(self._text))

    def _table(self, path: Path, header: tuple[str, ...], values: dict[str, Any]) -> None:
        plain = {k: v for k, v in values.items() if not is_table(v) and not is_tables(v)}
        for key, value in plain.items():
            self._put((*path, key), f"  {name(key)} = {inline(value)}  # = [x]")
            self._elements((*path, key), value)
        for key, value in values.items():
            inner = (*header, key)
            dotted = ".".join(name(part) for part in inner)
            if is_table(value):
                self._put((*path, key), f"[{dotted}]")
                self._table((*path, key), inner, value)
            elif is_tables(value):
                for place, one in enumerate(value):
                    self._text.append("")
                    self._put((*path, key, place), f"[[ {dotted} ]] # a comment")
                    self.lines.setdefault((*path, key), len(self._text))
                    self._table((*path, key, place), inner, one)

    def _elements(self, path: Path, value: object) -> None:
        if isinstance(value, dict):
            for key, one in value.items():
                self.lines[*path, key] = len(self._text)
                self._elements((*path, key), one)
        elif isinstance(value, list):
            for place, one in enumerate(value):
                self.lines[*path, place] = len(self._text)
                self._elements((*path, place), one)


def is_table(value: object) -> bool:
    return isinstance(value, dict) and bool(value)


def is_tables(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, dict) for v in value)


def name(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else quoted(key)


def quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def inline(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, list):
        return f"[{', '.join(inline(one) for one in value)}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name(k)} = {inline(v)}" for k, v in value.items()) + "}"
    return repr(value)
