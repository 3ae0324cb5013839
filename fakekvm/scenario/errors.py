"""What is wrong with a scenario, said so that it can be found and mended."""

from __future__ import annotations

__all__ = ["ScenarioError"]

_LONGEST_KEY = 200


class ScenarioError(ValueError):
    """A scenario that cannot be used.

    Attributes:
        file: the file, as it was named.
        line: counted from 1; 0: no line in particular.
        key: the path of the key: ``guest[0].phase[1].steps``; "": no key in particular.
        found: what is there.
        expected: what should be there.
    """

    def __init__(self, file: str, line: int, key: str, found: str, expected: str) -> None:
        place = f"{file}:{line}" if line else file
        where = f"{place}: {_shortened(key)}" if key else place
        super().__init__(_printable(f"{where}: {found}; expected {expected}"))
        self.file = file
        self.line = line
        self.key = key
        self.found = found
        self.expected = expected


def _shortened(key: str) -> str:
    return key if len(key) <= _LONGEST_KEY else f"{key[: _LONGEST_KEY - 3]}..."


def _printable(text: str) -> str:
    """One line, whatever a file or its name holds: a terminal obeys control characters."""
    return "".join(it if it.isprintable() else repr(it)[1:-1] for it in text)
