"""Scenario files: TOML, checked key by key."""

from __future__ import annotations

import os
import re
import stat
import tomllib
from importlib import resources
from typing import Any

from fakekvm.scenario.errors import ScenarioError
from fakekvm.scenario.faulty import read_faults
from fakekvm.scenario.gfns import ALL
from fakekvm.scenario.hosts import read_host
from fakekvm.scenario.kinds import FLAG, GFNS, TEXT, choice, number, whole, wholes
from fakekvm.scenario.lines import key_lines
from fakekvm.scenario.model import Guest, Phase, Scenario
from fakekvm.scenario.phases import read_does
from fakekvm.scenario.tables import Document, Table

__all__ = ["SCHEMA", "load", "names", "parse"]

SCHEMA = "fakekvm.scenario/1"
_ENDS = ("halt", "repeat")
_U32 = (1 << 32) - 1
_MAX_BYTES = 1 << 20
_KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def names() -> list[str]:
    """The scenarios that come with the package."""
    return sorted(path.name.removesuffix(".toml") for path in _shipped().iterdir())


def load(path: str | os.PathLike[str]) -> Scenario:
    """Read a scenario file, or one that comes with the package, by its name.

    Raises:
        ScenarioError: it cannot be read or is wrong; says where, and what was expected.
    """
    name = str(path)
    try:
        if name in names():
            text = (_shipped() / f"{name}.toml").read_text("utf-8")
        else:
            text = _content(path).decode("utf-8")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ScenarioError(name, line, "", "this is not UTF-8", "TOML, a text") from None
    except (OSError, ValueError) as error:
        found = f"it cannot be read ({getattr(error, 'strerror', None) or error})"
        expected = f"a TOML file, or one of {', '.join(names())}"
        raise ScenarioError(name, 0, "", found, expected) from None
    return parse(text, name)


def parse(text: str, file: str = "<text>") -> Scenario:
    """Read a scenario's text.

    Args:
        text: TOML.
        file: what to call it in errors.

    Raises:
        ScenarioError: something is wrong; says where, and what was expected.
    """
    try:
        values = tomllib.loads(text)
        lines = key_lines(text)
    except RecursionError:
        raise ScenarioError(file, 0, "", "it is nested too deeply", "TOML 1.0") from None
    except ValueError as error:  # TOMLDecodeError, and numbers of thousands of digits
        raise _not_toml(text, file, str(error)) from None
    return _scenario(Table(Document(file, lines), (), values), file)


def _content(path: str | os.PathLike[str]) -> bytes:
    """The bytes of a file. Of a pipe or a device it is not known when, if ever, they end."""
    with open(path, "rb", opener=_open_at_once) as file:
        mode = os.fstat(file.fileno()).st_mode
        if not stat.S_ISREG(mode):
            raise ValueError(f"it is {_KINDS.get(stat.S_IFMT(mode), 'no file')}")
        content = file.read(_MAX_BYTES + 1)
    if len(content) > _MAX_BYTES:
        msg = "it has more than 1 MiB"
        raise ValueError(msg)
    return content


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # a FIFO that nobody writes to


def _shipped() -> Any:  # noqa: ANN401 - importlib's Traversable moved between Python versions
    return resources.files("fakekvm") / "scenarios"


def _not_toml(text: str, file: str, message: str) -> ScenarioError:
    place = re.search(r" \(at (?:line (\d+), column \d+|end of document)\)$", message)
    line = _line_of_long_number(text)
    if place:
        line = int(place[1]) if place[1] else text.rstrip("\n").count("\n") + 1
        message = message[: place.start()]
    return ScenarioError(file, line, "", message, "TOML 1.0")


def _line_of_long_number(text: str) -> int:
    """Of the one error whose place is not told."""
    digits = re.search(r"[0-9_]{4300,}", text)
    return text.count("\n", 0, digits.start()) + 1 if digits else 0


def _scenario(table: Table, file: str) -> Scenario:
    table.take("schema", choice([SCHEMA]))
    host = read_host(table)
    scenario = Scenario(
        about=table.take("about", TEXT, f"guests do what {file} says"),
        seed=table.take("seed", whole(0, (1 << 63) - 1), 0),
        host=host,
        faults=read_faults(table, host),
        guests=tuple(_guest(guest) for guest in table.tables("guest")),
    )
    table.done()
    return scenario


def _guest(table: Table) -> Guest:
    guest = Guest(
        vms=table.take("vms", wholes(0, _U32), ()) or None,
        vcpus=table.take("vcpus", wholes(0, _U32), ()) or None,
        repeats=table.take("at_end", choice(_ENDS), "halt") == "repeat",
        phases=_phases(table),
    )
    table.done()
    return guest


def _phases(guest: Table) -> tuple[Phase, ...]:
    tables = guest.tables("phase")
    phases = [_phase(table, splits=guest.has("vcpus")) for table in tables]
    for table, phase in zip(tables[:-1], phases, strict=False):
        if phase.does.endless and phase.max_steps is None:
            found = "it is missing, so that the phase never ends and the next never begins"
            raise table.wrong("steps", found, "a number of steps")
    return tuple(phases)


def _phase(table: Table, *, splits: bool) -> Phase:
    phase = Phase(
        does=read_does(table),
        gfns=table.take("gfns", GFNS, ALL),
        split=table.take("split", FLAG, False),
        max_steps=table.take("steps", whole(1, 1 << 53), 0) or None,
        pages_a_second=table.take("pages_a_second", number(1, 1e9), 0.0) or None,
    )
    if phase.split and not splits:
        found = "got true, in a guest of all vCPUs"
        raise table.wrong("split", found, "the key vcpus in the guest, to know how many share")
    table.done()
    return phase
