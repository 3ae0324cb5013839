"""What is printed and read, held to its schema. Most commands are where their other tests are."""

from __future__ import annotations

import gzip
import json
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

import kvmenc
from kvmenc.backtest.run import load_run
from kvmenc.capture import save_capture
from kvmenc.cli import root
from kvmenc.cli.common import emit_json
from kvmenc.migrate import MigrateReport, Progress
from kvmenc.plan import Parameters, Xbzrle, make_plan, profile_named
from tests.backtest.runs import run_file
from tests.capture.captures import sound_capture
from tests.plan.guests import GIB_PAGES, guest
from tests.schemas.test_files import AT_TIMES
from tests.schemas.validator import faults, validator

DATA = Path(__file__).parents[1] / "data"
RUNS = sorted((DATA / "backtest").rglob("*.json"))
PUBLISHED = sorted((Path(kvmenc.__path__[0]) / "backtest" / "data" / "published").iterdir())

if TYPE_CHECKING:
    from collections.abc import Iterator


def printed(*args: str) -> Any:
    run = CliRunner().invoke(root, args)
    assert run.exit_code in (0, 1), run.output
    return json.loads(run.stdout)


@pytest.mark.parametrize(
    "wanted",
    [
        Parameters(private_rate_pps=50_000),
        Parameters(auto_converge=True, time_limit_ms=60_000),
        Parameters(multifd_channels=4),
        Parameters(xbzrle=Xbzrle(0.5)),
        Parameters(postcopy=True),
    ],
    ids=["quick", "auto-converge", "multifd", "xbzrle", "postcopy"],
)
@pytest.mark.parametrize("qemu", ["7.2", "11"])
def test_plans_of_all_kinds(wanted: Parameters, qemu: str) -> None:
    assert not faults(plan_of(100 if wanted.private_rate_pps > 400 else 0, wanted, qemu))


def plan_of(private_pages: int, parameters: Parameters, qemu: str = "10.0") -> Any:
    """A plan as it is printed, of a guest that writes a lot."""
    busy = guest(1 << 14, private_pages, [(100, 0, 900), (1000, 0, 9000)])
    plan = make_plan(busy, parameters, profile_named(qemu))
    return json.loads(msgspec.json.encode(plan)) | {"kvmenc_version": "0"}


def test_the_way_to_this_machine_itself() -> None:
    assert not faults(printed("link", "--to", "127.0.0.1", "--json"))


@pytest.mark.parametrize("status", ["completed", "failed"])
def test_a_migration_beside_its_plan(status: str, capsys: pytest.CaptureFixture[str]) -> None:
    plan = make_plan(guest(GIB_PAGES // 4, 0, [(1000, 0, 900)]), Parameters())
    end = Progress(status=status, total_time=900, downtime=20, ram=plan.query_migrate.ram)
    emit_json(MigrateReport.of("tcp:host2:4444", plan, end))
    assert not faults(json.loads(capsys.readouterr().out))


def test_facts_in_a_capture_file(tmp_path: Path) -> None:
    save_capture(sound_capture(), tmp_path / "guest.capture")
    with zipfile.ZipFile(tmp_path / "guest.capture") as file:
        facts = json.loads(file.read("capture.json"))
    assert not faults(facts)
    assert faults(facts | {"blcoks": []})
    assert faults(facts | {"page_size": 512})


@pytest.mark.parametrize("path", [*RUNS[::17], *PUBLISHED], ids=lambda path: path.stem)
def test_runs_that_are_read(path: Path) -> None:
    load_run(path)
    assert not faults(json.loads(path.read_bytes()))


def test_a_run_that_is_refused_is_no_run_to_the_schema_either() -> None:
    changes: list[dict[str, Any]] = [{"bulk": 1}, {"name": ""}, {"capture": 7}, {"parameters": {}}]
    for change in changes:
        assert faults(json.loads(json.dumps(run_file(**change)))), change
    assert not faults(json.loads(json.dumps(run_file())))


def test_each_line_of_a_recording(tmp_path: Path) -> None:
    path = tmp_path / "a.recording"
    printed("probe", "--backend", "fake", "--self-test", "--record", str(path), "--json")
    lines = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
    check = validator("kvmenc.recording/1")
    kinds = {line.get("call", "header"): line for line in lines}
    assert kinds.keys() >= {"header", "open", "ioctl", "mmap", "close", "end"}
    for line in kinds.values():
        assert check.is_valid(line)
        assert not check.is_valid(line | {"clal": 1})


PLAN = plan_of(100, Parameters(private_rate_pps=50_000))


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """All fields of all objects."""
    if isinstance(value, dict):
        for key, it in value.items():
            yield (*path, key)
            yield from places(it, (*path, key))
    elif isinstance(value, list):
        for i, it in enumerate(value):
            yield from places(it, (*path, i))


@given(st.sampled_from(list(places(PLAN))), st.sampled_from(["missing", "misnamed", "of a type"]))
def test_one_wrong_field_is_noticed(path: tuple[Any, ...], how: str) -> None:
    plan = json.loads(json.dumps(PLAN))
    *above, key = path
    holder = plan
    for step in above:
        holder = holder[step]
    value = holder.pop(key)
    if how == "misnamed":
        holder[key + "s"] = value
    elif how == "of a type":
        holder[key] = {"no": "such"}
    noticed = bool(list(validator("kvmenc.plan/1").iter_errors(plan)))
    assert noticed == (how != "missing" or key not in AT_TIMES)
