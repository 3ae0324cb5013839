"""``kvmenc layout`` on a real QEMU, against what QEMU and its trace say."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from kvmenc.plan import Parameters
from tests.cli.test_root import kvmenc
from tests.qemu.guest import PAGE, Guest
from tests.qemu.machine import Machine, Place

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.qemu


@pytest.fixture(params=["pc", "q35", "microvm"])
def qemu(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Machine]:
    with Machine(tmp_path / "vm", Guest(1), request.param) as machine:
        yield machine


def layout(*options: str) -> dict[str, Any]:
    result = kvmenc("layout", *options, "--json")
    assert (result.returncode, result.stderr) == (0, "")
    report: dict[str, Any] = json.loads(result.stdout)
    return report


def pieces_of(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Without what only a trace tells."""
    unknown = {"slot_id", "log_dirty", "guest_memfd"}
    return [{key: it[key] for key in it.keys() - unknown} for it in report["pieces"]]


def save(qemu: Machine, folder: Path, command: str) -> str:
    file = folder / command.split()[1]
    file.write_text(qemu.monitor(command))
    return str(file)


def test_both_ends_of_every_slot_lie_where_qemu_says(qemu: Machine) -> None:
    report = layout("--qmp", str(qemu.second_socket))
    assert report["pieces"]
    for it in report["pieces"]:
        first = Place(it["block"].rpartition("/")[2], it["host_addr"])
        last = first._replace(host_addr=it["host_addr"] + (it["npages"] - 1) * PAGE)
        assert qemu.find(it["base_gfn"] * PAGE) == first
        assert qemu.find((it["base_gfn"] + it["npages"] - 1) * PAGE) == last
    assert {it["name"]: it["npages"] for it in report["blocks"]} == qemu.block_pages()


def test_the_slots_are_those_that_qemu_sets_when_a_migration_logs_them(
    qemu: Machine, tmp_path: Path
) -> None:
    """QEMU has KVM log every slot then, ROM too."""
    asked = layout("--qmp", str(qemu.second_socket))
    mtree, ramblock = (save(qemu, tmp_path, it) for it in ("info mtree -f", "info ramblock"))
    log = tmp_path / "log"
    qemu.trace_to(log, "kvm_set_user_memory")
    qemu.migrate(Parameters())
    logged = tmp_path / "logged"
    lines = log.read_text().splitlines(keepends=True)
    logged.write_text("".join(it for it in lines if "flags=0x1" in it or "flags=0x3" in it))
    assert layout("--mtree", mtree, "--ramblock", ramblock)["warnings"] == asked["warnings"]
    traced = layout("--trace", str(logged), "--ramblock", ramblock, "--mtree", mtree)
    assert pieces_of(traced) == pieces_of(asked)
    assert all(it["log_dirty"] for it in traced["pieces"])


def test_qemu_is_left_as_it_was_found(qemu: Machine) -> None:
    def state() -> list[object]:
        answers = [qemu.command(it) for it in ("query-status", "query-migrate", "query-dirty-rate")]
        events = qemu.command("trace-event-get-state", name="*")
        return [*answers, events, qemu.monitor("info mtree -f"), qemu.monitor("info ramblock")]

    before = state()
    layout("--qmp", str(qemu.second_socket))
    assert state() == before


def test_the_socket_serves_the_next_client_the_same(qemu: Machine) -> None:
    first = layout("--qmp", str(qemu.second_socket))
    assert layout("--qmp", str(qemu.second_socket)) == first
