"""Run files: what they may say, and that nothing else is taken."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvmenc.backtest import Run, load_run
from kvmenc.backtest.run import published_runs
from kvmenc.capture import save_capture
from kvmenc.errors import CaptureError, InputError
from kvmenc.plan import Parameters
from tests.backtest.runs import run_file
from tests.plan.guests import guest

ROOT = Path(__file__).parents[2]
CAPTURE = guest(1000, 0, [(100, 0, 50)])


def load(folder: Path, fields: object) -> Run:
    path = folder / "run.json"
    path.write_text(json.dumps(fields))
    return load_run(path)


def test_what_qemu_answers_may_be_given_whole(tmp_path: Path) -> None:
    run = load(tmp_path, run_file())
    assert run.figures.total_time == 6000
    assert run.figures.ram.dirty_sync_count == 4
    assert run.capture
    assert run.capture.npages == 2**18
    assert run.parameters == Parameters(max_bandwidth_bytes_per_s=1e8, downtime_limit_ms=300)


def test_what_need_not_be_said_has_a_default(tmp_path: Path) -> None:
    run = load(tmp_path, run_file())
    assert (run.scenario, run.transport, run.qemu, run.bulk_ms) == ("a run", None, None, None)


def test_how_it_was_made_is_kept(tmp_path: Path) -> None:
    said = {"scenario": "hot", "transport": "tcp", "qemu": "7.2.22", "bulk_ms": 5000.5}
    parameters = PARAMETERS | {"auto_converge": True, "send_buffer_bytes": 4096}
    run = load(tmp_path, run_file(parameters=parameters, **said))
    assert {name: getattr(run, name) for name in said} == said
    assert run.parameters
    assert run.parameters.auto_converge
    assert run.parameters.send_buffer_bytes == 4096


def test_the_example_of_the_documentation_is_a_run_file(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "backtest.md").read_text().split("```json")[1].split("```")[0]
    save_capture(CAPTURE, tmp_path / "db7.capture")
    run = load(tmp_path, json.loads(text))
    assert (run.capture, run.scenario, run.bulk_ms) == (CAPTURE, "db7", 17250)


def test_a_capture_may_be_a_file_beside_the_run(tmp_path: Path) -> None:
    (tmp_path / "captures").mkdir()
    save_capture(CAPTURE, tmp_path / "captures" / "a.capture")
    assert load(tmp_path, run_file(capture="captures/a.capture")).capture == CAPTURE


@pytest.mark.parametrize("path", ["/etc/passwd", "../run.json", "a/../../b", "/dev/zero"])
def test_a_capture_is_never_looked_for_elsewhere(tmp_path: Path, path: str) -> None:
    with pytest.raises(InputError, match="below the run file's own folder") as raised:
        load(tmp_path, run_file(capture=path))
    assert not isinstance(raised.value, CaptureError)


def test_a_bad_capture_beside_the_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match=r"none\.capture: cannot be read"):
        load(tmp_path, run_file(capture="none.capture"))


PARAMETERS = run_file()["parameters"]
BAD: list[tuple[dict[str, object], str]] = [
    ({"schema": "kvmenc.backtest-run/2"}, r"\$\.schema"),
    ({"query_migrate": {"status": "cancelled"}}, r"\$\.query_migrate\.status"),
    ({"query_migrate": {"status": "completed", "total-time": -1}}, "total-time"),
    ({"query_migrate": {"status": "completed", "ram": {"normal": 2**64}}}, "normal"),
    ({"parameters": {"max_bandwidth_bytes_per_s": 0, "downtime_limit_ms": 1}}, "max_bandwidth"),
    ({"parameters": {"max_bandwidth_bytes_per_s": 1e8, "downtime_limit_ms": 3e6}}, "downtime"),
    ({"parameters": {"max_bandwidth_bytes_per_s": 1e99, "downtime_limit_ms": 300}}, "bandwidth"),
    ({"parameters": None}, "expected capture and parameters"),
    ({"capture": None}, "expected capture and parameters"),
    ({"missing": ["nothing"]}, "or else what is `missing`"),
    ({"capture": {"schema": "kvmenc.capture/1"}}, "source"),
    ({"capture": 7}, "not a usable run"),
    ({"capture": "a\0b"}, "not a usable"),
    ({"name": "\x1b[31m"}, "printable"),
    ({"notes": ["two\nlines"]}, "printable"),
    ({"tuned_by": 3}, "unknown field"),
    ({"scenario": ""}, "scenario"),
    ({"scenario": "a\tb"}, "printable"),
    ({"qemu": "\x1b[2J"}, "printable"),
    ({"transport": "rdma"}, "transport"),
    ({"bulk_ms": -1}, "bulk_ms"),
    ({"parameters": PARAMETERS | {"auto_converge": 1}}, "auto_converge"),
    ({"parameters": PARAMETERS | {"send_buffer_bytes": -1}}, "send_buffer_bytes"),
    ({"parameters": PARAMETERS | {"hot_pages": 1}}, "unknown field"),
]


@pytest.mark.parametrize(("changes", "why"), BAD)
def test_a_bad_file_is_one_line_that_says_why(
    tmp_path: Path, changes: dict[str, Any], why: str
) -> None:
    with pytest.raises(InputError, match=why) as raised:
        load(tmp_path, run_file(**changes))
    assert str(raised.value).isprintable()
    assert str(raised.value).startswith(str(tmp_path))


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff\xfe", b"[" * 100_000, b"{" * 100_000])
def test_what_is_no_object_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "run.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match="not a usable run"):
        load_run(path)


def test_a_huge_file_is_refused_before_it_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    with path.open("wb") as file:
        file.write(b"{")
        file.truncate(2**40)
    with pytest.raises(InputError, match="expected at most"):
        load_run(path)


@settings(max_examples=60)
@given(at=st.integers(0, 10_000), byte=st.integers(0, 255))
def test_a_damaged_file_is_a_run_or_an_input_error(
    tmp_path_factory: pytest.TempPathFactory, at: int, byte: int
) -> None:
    data = bytearray(json.dumps(run_file()).encode())
    data[at % len(data)] = byte
    path = tmp_path_factory.mktemp("damaged") / "run.json"
    path.write_bytes(data)
    with suppress(InputError):
        load_run(path)


def test_every_published_run_names_its_source_and_what_it_assumes_or_lacks() -> None:
    runs = published_runs()
    assert len({run.name for run in runs}) == len(runs)
    for run in runs:
        assert run.source
        assert bool(run.assumptions) != bool(run.missing)
        assert (run.capture is None) == bool(run.missing)


def test_a_published_run_is_a_run_file_like_any_other() -> None:
    folder = ROOT / "kvmenc" / "backtest" / "data" / "published"
    loaded = [load_run(path) for path in sorted(folder.glob("*.json"))]
    assert loaded == published_runs()


PAGES = {"normal": 3, "zero": 2, "encrypted": 1}
ROUND = {"ms": 10.5, "stopped": False, "pages": PAGES, "bytes": PAGES}


def test_rounds_may_be_told(tmp_path: Path) -> None:
    (it,) = load(tmp_path, run_file(rounds=[ROUND])).rounds
    assert (it.ms, it.stopped, it.pages.encrypted, it.bytes.zero) == (10.5, False, 1, 2)
    with pytest.raises(InputError, match=r"rounds\[0\]\.pages\.normal"):
        load(tmp_path, run_file(rounds=[ROUND | {"pages": PAGES | {"normal": -1}}]))


def rehearsed(**changes: object) -> dict[str, Any]:
    """As much of ``kvmenc dry-run --json`` as is read."""
    limits = {"max_bandwidth_bytes_per_s": 1e8, "downtime_limit_ms": 300.0}
    ledger = {
        "profile": "qemu-7.2",
        "inputs": limits | {"link_bytes_per_s": 1e9, "private_rate_pps": 2e4, "postcopy": False},
        "rounds": [ROUND | {"dirty_pages": 6}, ROUND | {"stopped": True}],
        "query_migrate": {"status": "completed", "total-time": 20, "ram": {"normal": 6}},
    }
    capture = msgspec.to_builtins(CAPTURE)
    fields = {"schema": "kvmenc.dry-run/1", "guest": "a guest", "capture": capture}
    return fields | {"ledger": ledger | changes}


def test_what_dry_run_prints_is_a_run(tmp_path: Path) -> None:
    run = load(tmp_path, rehearsed())
    assert (run.name, run.source, run.qemu) == ("run", "kvmenc dry-run of a guest", "7.2")
    assert (run.bulk_ms, [it.stopped for it in run.rounds]) == (10.5, [False, True])
    assert run.parameters
    assert run.parameters.private_rate_pps == 2e4
    assert run.capture == CAPTURE
    assert run.notes


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"profile": "qemu-0.1"}, "expected a known profile"),
        ({"inputs": {}}, "max_bandwidth_bytes_per_s"),
        ({"rounds": [{"ms": -1.0}]}, "rounds"),
        ({"query_migrate": {"status": "lost"}}, "status"),
    ],
)
def test_a_rehearsal_that_none_printed_is_refused(
    tmp_path: Path, changes: dict[str, object], told: str
) -> None:
    with pytest.raises(InputError, match=told) as caught:
        load(tmp_path, rehearsed(**changes))
    assert str(caught.value).isprintable()
