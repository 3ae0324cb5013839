"""The schema of scenarios, which is written by hand, against what fakekvm reads."""

from __future__ import annotations

import dataclasses
import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import fakekvm
from fakekvm import scenario
from fakekvm.scenario.phases import PHASES
from tests.fakekvm.scenario.test_loading import FAULT, WRONG, outcome
from tests.fakekvm.scenario.toml import Writer
from tests.schemas.validator import SCENARIO, faults, schemas

if TYPE_CHECKING:
    from collections.abc import Iterator

SCHEMA = schemas()[SCENARIO]
SHIPPED = Path(fakekvm.__path__[0]) / "scenarios"
DOCS = (Path(__file__).parents[2] / "docs" / "fakekvm.md").read_text()
#: What no schema can say: of which numbers fit each other, and what a host has.
BEYOND = {
    "endless",
    "split of all",
    "not finite",
    "gfns backwards",
    "gfns within a page",
    "a fault's request",
    "a fault's request that the host has not",
    "a fault's error",
    "a delay of no command",
    "before a call that never comes",
    "syntax",
    "syntax at the end",
    "a key twice",
    "a number too long",
    "nested",
}


@pytest.mark.parametrize("name", scenario.names())
def test_it_takes_the_scenarios_that_come_with_the_package(name: str) -> None:
    assert not faults(tomllib.loads((SHIPPED / f"{name}.toml").read_text()))


def test_it_takes_the_examples_of_the_docs() -> None:
    whole, part = re.findall(r"```toml\n(.*?)```", DOCS, re.DOTALL)
    assert not faults(tomllib.loads(whole))
    assert not faults(tomllib.loads(FAULT.removesuffix("[[fault]]\n") + part))


@pytest.mark.parametrize("name", sorted(WRONG.keys() - BEYOND))
def test_it_refuses_what_is_refused(name: str) -> None:
    document = tomllib.loads(WRONG[name][0])
    assert faults(document | {"schema": SCENARIO}) or document.get("schema") != SCENARIO


def test_each_phase_has_the_keys_of_its_class() -> None:
    rows = {it["properties"]["does"]["const"]: it for it in SCHEMA["$defs"]["phase"]["oneOf"]}
    assert rows.keys() == PHASES.keys()
    for name, row in rows.items():
        kind: Any = PHASES[name]
        own = dataclasses.fields(kind)
        shared = {"does", "gfns", "split", "steps", "pages_a_second"}
        assert row["properties"].keys() - shared == {it.name for it in own} - shared
        needed = {it.name for it in own if it.default is dataclasses.MISSING}
        assert set(row["required"]) == needed | {"does"}


def resolved(field: dict[str, Any]) -> dict[str, Any]:
    """What a field may be, behind its reference."""
    where = field.get("$ref", "").rpartition("/")[2]
    return field | SCHEMA["$defs"][where] if where else field


def numbers(fields: dict[str, Any]) -> Iterator[tuple[str, int | float]]:
    """Each field that takes numbers: its bounds, and those just beyond."""
    for key, field in fields.items():
        kind = resolved(field)
        for it in [kind, *kind.get("oneOf", ())]:
            if "minimum" in it:
                last = it["maximum"] if "maximum" in it else it["exclusiveMaximum"] - 1
                yield from (
                    (key, value) for value in (it["minimum"] - 1, it["minimum"], last, last + 1)
                )


def edges() -> Iterator[dict[str, Any]]:
    """Scenarios with one number at the edge."""
    halts = [{"phase": [{"does": "halt"}]}]
    defs = SCHEMA["$defs"]
    for row in defs["phase"]["oneOf"]:
        does = row["properties"]["does"]["const"]
        needed = {"private": True, "port": 1, "rest": 1}
        phase = {"does": does} | {key: needed[key] for key in row["required"][1:]}
        for key, value in numbers(row["properties"]):
            yield {"guest": [{"phase": [phase | {key: value}]}]}
    for key, value in numbers(defs["host"]["properties"]):
        yield {"guest": halts, "host": {key: value}}
    for key, value in numbers(defs["fault"]["properties"]):
        fault = {"error": "EIO", "request": "KVM_MEMORY_ENCRYPT_OP"} | {key: value}
        yield {"guest": halts, "fault": [fault], "host": "sev"}


@pytest.mark.parametrize("document", list(edges()), ids=str)
def test_its_bounds_are_those_of_what_is_read(document: dict[str, Any]) -> None:
    document = {"schema": SCENARIO} | document
    assert (outcome(Writer(document).text) is None) == (not faults(document))


@pytest.mark.parametrize(
    "gfns",
    [
        *("all", 5, "0x100", "0x100-0x7fff", "1 - 2", "64 MiB-96 MiB", "0B-4 KiB", "25%-50%"),
        *("slot 0", ["all", 5], "0.5 % - 99.5 %"),
        *("some", [], "64 MB-96 MB", -1, 1 << 40, "slot", True, "0x", 1.5),
    ],
    ids=str,
)  # fmt: skip
def test_it_knows_how_pages_are_told(gfns: object) -> None:
    phase = {"does": "write", "gfns": gfns}
    document = {"schema": SCENARIO, "guest": [{"phase": [phase]}]}
    assert (outcome(Writer(document).text) is None) == (not faults(document))
