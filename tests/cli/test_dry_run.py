"""``kvmenc dry-run`` as a user runs it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.cli.test_root import here, kvmenc
from tests.schemas.validator import faults

if TYPE_CHECKING:
    from pathlib import Path

SMALL = ("dry-run", "--memory", "4MiB")


def test_it_says_that_the_guest_arrived_whole_in_80_plain_columns() -> None:
    run = kvmenc(*SMALL)
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.startswith("Whole: the guest is at the destination, every page as it was.\n")
    assert "1,024 pages as their guest reads them: none differs, nor its state." in run.stdout
    assert run.stdout.isascii()
    assert max(map(len, run.stdout.splitlines())) <= 80


def test_a_broken_protocol_is_the_answer_no() -> None:
    run = here(*SMALL, "--protocol", "dirty; private once; CLEAR by GET", "--json")
    assert run.returncode == 1
    result = json.loads(run.stdout)
    assert (result["schema"], result["verdict"]) == ("kvmenc.dry-run/1", "wrong")
    assert not faults(result)


def test_a_fault_leaves_the_guest_at_the_source_and_files_for_the_others(tmp_path: Path) -> None:
    files = ("--stream", str(tmp_path / "s"), "--run", str(tmp_path / "r.json"))
    run = here(*SMALL, "--fault", "link-cut", *files)
    assert run.returncode == 0
    assert "it is as one that was never migrated" in " ".join(run.stdout.split())
    assert {it.name for it in tmp_path.iterdir()} == {"s", "r.json"}
    assert here("backtest", str(tmp_path / "r.json")).returncode == 0


def test_what_it_prints_as_json_is_a_migration_for_backtest(tmp_path: Path) -> None:
    """Of the built-in guest, whose plan is not exact: rounds stand side by side all the same."""
    file = tmp_path / "rehearsed.json"
    file.write_text(here(*SMALL, "--json").stdout)
    run = here("backtest", "--runs", str(file))
    assert (run.returncode, run.stderr) == (0, "")
    assert max(map(len, run.stdout.splitlines())) <= 80
    assert "Pages by round and road" in run.stdout
    answer = json.loads(here("backtest", "--json", str(file)).stdout)
    ledger = json.loads(file.read_text())["ledger"]
    (told,) = answer["runs"]
    actual = [it["actual"] for it in told["rounds"] if it["actual"]]
    assert [it["pages"] for it in actual] == [it["pages"] for it in ledger["rounds"]]


@pytest.mark.parametrize(
    ("args", "status", "says"),
    [
        (("--fault", "fire"), 4, "no fault 'fire'"),
        (("--fault", "cancel@never"), 4, "after @ comes a round"),
        (("--protocol", "none"), 2, "no protocol is called 'none'"),
        (("--scenario", "none"), 4, "none: it cannot be read"),
        (("--vcpus", "2"), 2, "--vcpus: it goes with --scenario"),
        (("--scenario", "in-place", "--private", "10%"), 2, "--private: a scenario's guest"),
        (("--scenario", "in-place", "--private", "0%"), 2, "--private: a scenario's guest"),
        (("--backend", "local"), 2, "--memory: it goes with --backend fake"),
        (("--stream", "/nowhere/x"), 4, "no folder"),
    ],
)
def test_bad_wishes_are_refused_in_words(args: tuple[str, ...], status: int, says: str) -> None:
    run = here(*SMALL, *args)
    assert (run.returncode, run.stdout) == (status, "")
    assert says in run.stderr
