"""``kvmenc backtest`` as a user runs it."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from kvmenc import cli
from kvmenc.backtest import Backtest, builtin_backtest
from tests.backtest.runs import run_file
from tests.cli.test_plan_command import on_a_terminal
from tests.cli.test_root import MAIN, here, kvmenc
from tests.schemas.validator import faults

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def builtin() -> subprocess.CompletedProcess[str]:
    return kvmenc("backtest")


@pytest.fixture(scope="module")
def found() -> Backtest:
    return builtin_backtest()


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch, found: Backtest) -> None:
    """What the command finds without a file: found once, for it takes seconds."""
    monkeypatch.setattr("kvmenc.backtest.builtin_backtest", lambda _update: found)


def test_into_a_pipe_it_is_plain_and_80_columns_wide(
    builtin: subprocess.CompletedProcess[str],
) -> None:
    assert (builtin.returncode, builtin.stderr) == (0, "")
    assert builtin.stdout.isascii()
    assert "\x1b" not in builtin.stdout
    assert max(map(len, builtin.stdout.splitlines())) <= 80


def test_colour_is_for_terminals_and_no_color_turns_it_off(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(run_file()))
    assert "\x1b[1m" in on_a_terminal("backtest", str(path))
    assert "\x1b[3" not in on_a_terminal("backtest", str(path), NO_COLOR="1")


def test_without_a_file_the_table_and_the_published_runs_are_shown(
    builtin: subprocess.CompletedProcess[str],
) -> None:
    text = builtin.stdout
    assert "the rule gives the published second in 48 of 48 cells" in text
    assert len(re.findall(r"^ *[0-9.]+ [MG]bps ", text, re.MULTILINE)) == 48
    assert "\nvep291-plain\n" in text
    assert "- vep291-idle-plain: missing memory size; bandwidth; dirty rate" in text
    assert re.search(r"^verdicts right( +\d of 6){3}$", text, re.MULTILINE)
    assert "Targets" not in text, "nobody asks them of published runs"


@pytest.mark.usefixtures("known")
def test_json_is_one_object_of_the_same(builtin: subprocess.CompletedProcess[str]) -> None:
    run = here("backtest", "--json")
    assert (run.returncode, run.stderr) == (0, "")
    answer: Any = json.loads(run.stdout)
    assert answer["schema"] == "kvmenc.backtest/1"
    assert not faults(answer)
    assert len(answer["grid"]["cells"]) == 48
    assert answer["grid"]["cells"][29]["downtime_limit"] == "unlim"
    assert {it["predictor"] for it in answer["summary"]} == {"kvmenc", "rule2023", "geometric"}
    shown = [it["name"] for it in answer["runs"]]
    assert all(name in builtin.stdout for name in shown)


def test_files_are_predicted_without_the_table(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.json").write_text(json.dumps(run_file(name=f"run {name}")))
    files = [str(tmp_path / "a.json"), str(tmp_path / "b.json")]
    run = here("backtest", *files)
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.index("run a") < run.stdout.index("run b")
    assert "published second" not in run.stdout
    answer: Any = json.loads(here("backtest", "--json", *files).stdout)
    assert answer["grid"] is None
    assert not faults(answer)
    assert answer["summary"][0]["total_time"]["runs"] == 2
    assert [it["name"] for it in answer["scenarios"]] == ["run a", "run b"]
    assert {"confidence", "ratios", "audit", "profiles"} <= answer.keys()
    *lines, few = run.stdout.split("\nTargets\n")[1].splitlines()[1:]
    assert few == "- asked of 40 scenarios or more: of fewer these say little"
    for target, line in zip(answer["targets"], lines, strict=True):
        assert line.startswith(f"{target['what']} ")


def test_repeats_are_one_line_and_with_runs_each_for_itself(tmp_path: Path) -> None:
    files = []
    for name in ("first", "second"):
        files.append(str(tmp_path / f"{name}.json"))
        Path(files[-1]).write_text(json.dumps(run_file(name=name, scenario="the scenario")))
    short, long = here("backtest", *files), here("backtest", "--runs", *files)
    assert re.search(r"^the scenario +2/2 +yes ", short.stdout, re.MULTILINE)
    assert "first" not in short.stdout
    assert re.search(r"^the scenario +2/2 +yes ", long.stdout, re.MULTILINE)
    for name in ("first", "second"):
        assert f"\n{name}\nSource: a test\n" in long.stdout
    assert max(map(len, (short.stdout + long.stdout).splitlines())) <= 80


@pytest.mark.parametrize("content", [b"", b"{}", b"[" * 100_000, b"\x7fELF" + b"\0" * 100])
def test_a_bad_file_is_exit_status_4_and_one_line(tmp_path: Path, content: bytes) -> None:
    good, bad = tmp_path / "good.json", tmp_path / "bad.json"
    good.write_text(json.dumps(run_file()))
    bad.write_bytes(content)
    run = here("backtest", str(good), str(bad))
    assert (run.returncode, run.stdout) == (4, "")
    assert run.stderr.startswith(f"kvmenc: {bad}: not a usable run: ")
    assert run.stderr.count("\n") == 1


def test_an_absent_file_is_exit_status_4(tmp_path: Path) -> None:
    run = here("backtest", str(tmp_path / "none.json"))
    assert (run.returncode, run.stdout) == (4, "")
    assert "No such file" in run.stderr


def test_a_broken_pipe_is_quiet(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text(json.dumps(run_file()))
    reader, writer = os.pipe()
    os.close(reader)
    try:
        run = subprocess.run(
            [*MAIN, "backtest", str(file)], stdout=writer, stderr=subprocess.PIPE, check=False
        )
    finally:
        os.close(writer)
    assert (run.returncode, run.stderr) == (141, b"")


def test_the_docs_show_what_is_printed(builtin: subprocess.CompletedProcess[str]) -> None:
    """Cell for cell, but for kvmenc's own column, which is better with every planner."""

    def cells(text: str) -> list[list[str]]:
        rows = [re.split(r"  +", line.strip()) for line in text.strip().splitlines()]
        return [[row[0], *row[2:]] for row in rows]

    page = (ROOT / "docs" / "backtest.md").read_text().split("## How good it is")[1].split("```")[1]
    printed = builtin.stdout.split("Errors over all runs")[1].splitlines()[1:]
    shown = cells(page.split("Errors over all runs")[1].split("\n", 1)[1])
    assert len(shown) >= 11
    assert shown == cells("\n".join(printed))[: len(shown)]


@pytest.mark.usefixtures("known")
def test_the_examples_of_the_help_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "a.json").write_text(json.dumps(run_file()))
    monkeypatch.chdir(tmp_path)
    text = CliRunner().invoke(cli.root, ["backtest", "--help"]).stdout
    examples = [line.split("|")[0].split() for line in text.splitlines() if "  kvmenc " in line]
    assert len(examples) == 4
    for example in examples:
        files = [str(it) for word in example[2:] for it in sorted(Path().glob(word))]
        options = [word for word in example[2:] if word.startswith("--")]
        assert CliRunner().invoke(cli.root, ["backtest", *options, *files]).exit_code == 0
