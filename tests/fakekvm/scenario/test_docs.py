"""What docs/fakekvm.md says of scenarios."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

from fakekvm import guests, scenario
from fakekvm.faults import Fault
from fakekvm.host import host_names
from fakekvm.revisions import REVISIONS
from fakekvm.scenario import ScenarioError
from fakekvm.scenario.phases import PHASES

TEXT = (Path(__file__).parents[3] / "docs" / "fakekvm.md").read_text()
SECTION = TEXT.split("## Scenarios and guests")[1].split("\n## ")[0]


def rows_after(head: str) -> list[list[str]]:
    """The cells of a table."""
    table = TEXT.split(head)[1].split("\n\n")[0]
    return [line.split("|")[1:-1] for line in table.splitlines()[2:]]


def code(cell: str) -> list[str]:
    return re.findall("`([^`]+)`", cell)


def test_faults_are_told_with_all_their_keys() -> None:
    faults = TEXT.split("## Faults")[1].split("\n## ")[0]
    (example,) = re.findall(r"```toml\n(.*?)```", faults, re.DOTALL)
    head = f'schema = "{scenario.SCHEMA}"\nhost = "sev-v9"\n'
    guest = '[[guest]]\n[[guest.phase]]\ndoes = "halt"\n'
    assert len(scenario.parse(head + guest + example).faults) == 3
    named = {name for row in rows_after("| key |") for cell in row[:2] for name in code(cell)}
    fields = {own.name for own in dataclasses.fields(Fault)}
    assert fields | {"above", "delay", "DEATH"} == named | {"DEATH"}


def test_the_example_can_be_loaded() -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", SECTION, re.DOTALL)
    read = scenario.parse(example)
    assert [type(phase.does) for phase in read.guests[0].phases] == [
        PHASES["random"],
        PHASES["zipf"],
    ]


def test_the_error_is_the_one_that_is_shown() -> None:
    shown = re.findall(r"```\n(mine\.toml.*?)\n```", SECTION, re.DOTALL)
    text = f"""schema = "{scenario.SCHEMA}"

[[guest]]
[[guest.phase]]
does = "halt"

[[guest.phase]]
does = "zipf"
exponnent = 2
"""
    with pytest.raises(ScenarioError) as caught:
        scenario.parse(text, "mine.toml")
    assert shown == [str(caught.value).replace("chunk_pages, does, ", "chunk_pages, does,\n")]


def test_each_phase_has_its_row_with_all_its_keys() -> None:
    kinds: dict[str, Any] = dict(PHASES)
    rows = [(code(names), set(code(keys)) - {"reboot"}) for names, keys in rows_after("| `does` |")]
    assert [name for names, _ in rows for name in names] == list(kinds)
    for names, keys in rows:
        assert keys == {own.name for name in names for own in dataclasses.fields(kinds[name])}


def test_hosts_streams_and_shipped_scenarios_are_all_named() -> None:
    named = {name for row in rows_after("| name |") for name in code(row[0])}
    assert named == {*host_names(), "sev-REVISION"} - {f"sev-{name}" for name in REVISIONS}
    streams = {name for row in rows_after("| stream |") for name in code(row[0])}
    made = {name for name in guests.__all__ if callable(getattr(guests, name)) and name.islower()}
    assert streams == made - {"paced", "placed", "part_of"}
    assert all(f"`{name}`" in SECTION for name in scenario.names())
