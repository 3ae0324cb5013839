"""TOML tables read key by key, so that whatever is wrong is told with its place."""

from __future__ import annotations

import json
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, TypeVar, overload

from fakekvm.scenario.errors import ScenarioError
from fakekvm.scenario.lines import KeyPath, line_of, spelled

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from fakekvm.scenario.kinds import Kind

__all__ = ["Document", "Table"]

T = TypeVar("T")
_MISSING: Any = object()


class Document:
    """A file: what is needed to say where something is wrong.

    Args:
        file: its name.
        lines: of its keys.
    """

    def __init__(self, file: str, lines: dict[KeyPath, int]) -> None:
        self.file = file
        self._lines = lines

    def wrong(self, path: KeyPath, found: str, expected: str) -> ScenarioError:
        """The error to be raised for a key."""
        return ScenarioError(self.file, line_of(self._lines, path), spelled(path), found, expected)


class Table:
    """A table whose keys are taken one by one; what is left over at the end is refused."""

    def __init__(self, document: Document, path: KeyPath, values: dict[str, Any]) -> None:
        self._document = document
        self._path = path
        self._values = values
        self._known: list[str] = []

    @overload
    def take(self, key: str, kind: Kind[T]) -> T: ...
    @overload
    def take(self, key: str, kind: Kind[T], default: T) -> T: ...
    @overload
    def take(self, key: str, kind: Kind[T], default: None) -> T | None: ...
    def take(self, key: str, kind: Kind[T], default: T | None = _MISSING) -> T | None:
        """The value of a key.

        Raises:
            ScenarioError: it is not there and has no default, or is not what it must be.
        """
        self._known.append(key)
        if key not in self._values:
            if default is _MISSING:
                raise self.wrong(key, "it is missing", kind.expected)
            return default
        value = self._values[key]
        try:
            return kind.read(value)
        except (ValueError, TypeError) as error:
            expected = kind.expected + _hint(value, kind.names)
            raise self.wrong(key, f"got {_shown(value)}{_reason(error)}", expected) from None

    def has(self, key: str) -> bool:
        """Whether the key is there."""
        return key in self._values

    def holds_table(self, key: str) -> bool:
        """Whether the key is there, and a table."""
        return isinstance(self._values.get(key), dict)

    def table(self, key: str) -> Table:
        """The table of this name; an empty one where there is none."""
        self._known.append(key)
        values = self._values.get(key, {})
        if not isinstance(values, dict):
            raise self.wrong(key, f"got {_shown(values)}", "a table")
        return Table(self._document, (*self._path, key), values)

    def tables(self, key: str, least: int = 1) -> list[Table]:
        """The tables of an array of this name.

        Raises:
            ScenarioError: it is none, or holds fewer than ``least``, which is 0 or 1.
        """
        self._known.append(key)
        values = self._values.get(key, [])
        path = (*self._path, key)
        if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
            raise self.wrong(key, f"got {_shown(values)}", f"tables, each headed {_header(path)}")
        if len(values) < least:
            raise self.wrong(key, "there is none", f"at least one table, headed {_header(path)}")
        return [Table(self._document, (*path, n), value) for n, value in enumerate(values)]

    def items(self) -> Iterable[str]:
        """The names of all keys, which count as known then."""
        self._known += self._values
        return list(self._values)

    def done(self) -> None:
        """Nothing else may be in it.

        Raises:
            ScenarioError: there is a key of no known name.
        """
        for key in self._values:
            if key not in self._known:
                known = f"one of {', '.join(sorted(set(self._known)))}"
                raise self.wrong(key, "there is no such key", known + _hint(key, self._known))

    def wrong(self, key: str | None, found: str, expected: str) -> ScenarioError:
        """The error to be raised for one of its keys; None: for the table."""
        path = self._path if key is None else (*self._path, key)
        return self._document.wrong(path, found, expected)


def _header(path: KeyPath) -> str:
    return f"[[{'.'.join(part for part in path if isinstance(part, str))}]]"


def _hint(value: object, names: Sequence[str]) -> str:
    near = get_close_matches(str(value)[:80], names, 1) if isinstance(value, str) else []
    return f" (did you mean {near[0]}?)" if near else ""


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "a table"
    text = json.dumps(value, ensure_ascii=False) if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _reason(error: Exception) -> str:
    return f" ({error})" if isinstance(error, ValueError) and str(error) else ""
