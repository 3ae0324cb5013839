"""``kvmenc migrate`` with a real QEMU into another."""

from __future__ import annotations

import json
import signal
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from kvmenc.capture import save_capture
from tests.cli.test_root import MAIN, kvmenc
from tests.plan.guests import guest
from tests.qemu.guest import Guest, Writer
from tests.qemu.inside import differing_pages
from tests.qemu.machine import Machine
from tests.qemu.setup import Setup
from tests.schemas.validator import faults

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.qemu

WRITER = Writer(2016, 504, 20)


@pytest.fixture
def source(tmp_path: Path) -> Iterator[Machine]:
    with Machine(tmp_path / "source", Guest(16128, writer=WRITER)) as machine:
        yield machine


@pytest.fixture
def target(source: Machine, tmp_path: Path) -> Iterator[Machine]:
    with source.twin(tmp_path / "target") as machine:
        yield machine


def migrate(source: Machine, *options: str) -> subprocess.CompletedProcess[str]:
    return kvmenc("migrate", "--qmp", str(source.second_socket), *options)


def test_a_guest_is_watched_migrated_and_compared_with_the_plan(
    source: Machine, target: Machine, tmp_path: Path
) -> None:
    before = source.command("query-migrate-parameters")
    done = migrate(
        source, "--uri", target.listen(), "--seconds", "2", "--apply-plan",
        "--max-bandwidth", "50MB/s", "--downtime-limit", "400ms", "--link", "10Gbit", "--json",
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    report: dict[str, Any] = json.loads(done.stdout)
    assert not faults(report)
    assert (report["schema"], report["outcome"]) == ("kvmenc.migrate/1", "completed")
    pairs = {it["field"]: (it["predicted"], it["actual"]) for it in report["fields"]}
    predicted, actual = pairs["total-time"]
    assert actual > 1000, "64 MiB at 50 MB/s: the cap was set"
    assert abs(predicted - actual) < 0.3 * actual
    predicted, actual = pairs["normal"]
    assert abs(predicted - actual) < 0.3 * actual
    target.wait_for_arrival()
    assert source.command("query-migrate-parameters") == before
    dumps = [one.dump(tmp_path / f"dump-{one.pid}") for one in (source, target)]
    assert differing_pages(*dumps) == []


def test_a_capture_made_before_is_taken_and_the_table_fits_a_terminal(
    source: Machine, target: Machine, tmp_path: Path
) -> None:
    file = tmp_path / "a.capture"
    save_capture(source.capture(), file)
    done = migrate(source, "--uri", target.listen(), str(file), "--link", "10Gbit")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].startswith("Migration to tcp:127.0.0.1:")
    assert lines[0].endswith(": completed.")
    assert max(map(len, lines)) <= 80
    assert any(line.split()[0] == "dirty-sync-count" for line in lines if line)


def test_a_capture_of_another_guest_is_refused(source: Machine, tmp_path: Path) -> None:
    file = tmp_path / "a.capture"
    save_capture(guest(1 << 18, 0, [(1, 0, 1)]), file)
    done = migrate(source, "--uri", f"unix:{tmp_path}/nobody", str(file))
    assert done.returncode == 4
    assert f"{file} is of another guest: it has a RAMBlock pc.ram of 1 GiB, " in done.stderr
    assert source.command("query-migrate") == {}


def test_what_does_not_converge_is_not_begun(
    source: Machine, target: Machine, tmp_path: Path
) -> None:
    file = tmp_path / "a.capture"
    save_capture(source.capture(), file)
    done = migrate(
        source, "--uri", target.listen(), str(file), "--apply-plan",
        "--max-bandwidth", "5MB/s", "--downtime-limit", "10ms",
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("kvmenc: not begun (--anyway to do it): ")
    assert done.stderr.count("\n") == 1
    assert source.command("query-migrate") == {}


def test_a_migration_that_takes_much_longer_than_predicted_is_cancelled(
    source: Machine, target: Machine, tmp_path: Path
) -> None:
    """The plan is of a guest that does nothing."""
    file = tmp_path / "a.capture"
    idle = Machine.capture
    with Machine(tmp_path / "idle", Guest(16128)) as other:
        save_capture(idle(other), file)
    done = migrate(
        source, "--uri", target.listen(), str(file), "--apply-plan", "--cancel-over", "20",
        "--max-bandwidth", "20MB/s", "--downtime-limit", "10ms", "--json",
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (1, "")
    report = json.loads(done.stdout)
    assert not faults(report)
    assert report["outcome"] == "cancelled"
    assert report["reason"] == "it took more than 20 % longer than predicted"
    assert source.run_state() == "running"


def test_ctrl_c_cancels_and_the_guest_runs_on(
    source: Machine, target: Machine, tmp_path: Path
) -> None:
    file = tmp_path / "a.capture"
    save_capture(source.capture(), file)
    command = [*MAIN, "migrate", "--qmp", str(source.second_socket), "--uri", target.listen()]
    process = subprocess.Popen(
        [*command, str(file), "--apply-plan", "--max-bandwidth", "5MB/s", "--anyway"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    source.wait_for("the start", lambda: "active" in str(source.command("query-migrate")))
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 130
    assert stderr == "kvmenc: interrupted\n"
    assert "cancelled" in str(source.command("query-migrate"))
    assert source.run_state() == "running"


def test_nobody_at_the_other_end_is_one_line(source: Machine, tmp_path: Path) -> None:
    file = tmp_path / "a.capture"
    save_capture(source.capture(), file)
    done = migrate(source, "--uri", "tcp:127.0.0.1:1", str(file), "--link", "10Gbit")
    assert done.returncode == 1
    assert "failed" in done.stdout.splitlines()[0]


@pytest.mark.parametrize("uri", ["", "nonsense", "-d tcp:x", "http://x"])
def test_a_uri_that_is_none_is_bad_input(source: Machine, tmp_path: Path, uri: str) -> None:
    file = tmp_path / "a.capture"
    save_capture(source.capture(), file)
    done = migrate(source, "--uri", uri, str(file), "--link", "10Gbit")
    assert done.returncode == 4
    assert done.stderr.count("\n") == 1


def test_a_sandboxed_qemu_is_not_made_to_start_a_program(tmp_path: Path) -> None:
    file = tmp_path / "a.capture"
    with Machine(tmp_path / "vm", Guest(100), setup=Setup(sandbox=True)) as qemu:
        save_capture(qemu.capture(), file)
        done = migrate(qemu, "--uri", "exec:cat >/dev/null", str(file), "--link", "10Gbit")
        assert done.returncode == 3
        assert "sandbox" in done.stderr
        assert qemu.is_alive()
