"""What else the pages say that can be checked."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING

from fakekvm import scenario
from tests.docs.pages import ROOT, blocks
from tests.docs.transcripts import commands_of, run, wrong
from tests.schemas.validator import schemas

if TYPE_CHECKING:
    from pathlib import Path

DOCS = ROOT / "docs"
#: The words that all of the code uses.
WORDS = (
    "gfn, memslot, RAMBlock, offset, ram_addr, dirty, private, shared, sync, flip, round, "
    "threshold, verdict, road, normal, zero, encrypted"
)


def test_the_words_of_the_code_are_in_the_glossary_once() -> None:
    terms = re.findall(r"^(\S.*)\n  \S", (DOCS / "glossary.md").read_text(), re.MULTILINE)
    assert set(WORDS.split(", ")) <= set(terms)
    assert len(terms) == len(set(terms))


def test_each_schema_is_on_its_page() -> None:
    shown = re.findall(r"^```{schema-tables} \S+/(\S+)$", schemas_page(), re.MULTILINE)
    assert sorted(shown) == sorted(it["$id"] for it in schemas().values())
    titles = re.findall(r"^### (.+)$", schemas_page(), re.MULTILINE)
    assert sorted(titles) == sorted(schemas())


def schemas_page() -> str:
    return (DOCS / "reference" / "schemas.md").read_text()


def test_the_scenario_of_the_how_to_can_be_loaded() -> None:
    guests, faults = blocks(DOCS / "howto" / "ci.md", "toml")
    read = scenario.parse(guests + faults)
    assert len(read.guests[0].phases) == len(read.faults) == 2


def test_the_shell_scripts_of_the_how_tos_are_sound() -> None:
    scripts = [it for page in (DOCS / "howto").iterdir() for it in blocks(page, "sh")]
    assert len(scripts) > 15
    for script in scripts:
        run = subprocess.run(
            ["sh", "-n"], input=script, capture_output=True, text=True, check=False
        )
        assert (run.returncode, run.stderr) == (0, ""), script


def test_the_rehearsal_that_is_shown_is_what_is_printed(tmp_path: Path) -> None:
    (command,) = commands_of((DOCS / "dry-run.md").read_text())
    assert not wrong(command, run(command.line, tmp_path).stdout)


def test_figures_of_errors_are_those_that_the_runs_gave() -> None:
    """docs/backtest.md has what `kvmenc backtest` printed, and tests hold the runs."""
    page = " ".join((DOCS / "explanation" / "errors.md").read_text().split())
    printed = (DOCS / "backtest.md").read_text()
    row = {line.split("  ")[0]: line for line in printed.splitlines()}
    total, after, sent = (re.findall(r"[\d.]+ / \d+", row[it])[0] for it in (
        "total time, % off", "after the bulk, % off", "transferred, % off",
    ))  # fmt: skip
    for median, worst in (it.split(" / ") for it in (total, after, sent)):
        assert re.search(rf"{re.escape(median)} (% in the median )?and (by )?{worst} %", page)
    right, runs = re.findall(r"(\d+) of (\d+)", row["verdicts right"])[0]
    assert f"Of {runs} verdicts {right} were right" in page
