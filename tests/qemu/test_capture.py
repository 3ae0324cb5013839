"""A capture of a real guest says what the guest is known to do, and harms nobody."""

from __future__ import annotations

import itertools
import os
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from kvmenc.encstate.choose import SourceName
from kvmenc.errors import HostError
from kvmenc.memory.words import ranges
from kvmenc.plan import Parameters
from kvmenc.qemu.qmp import Qmp
from kvmenc.watch.run import watch
from kvmenc.watch.wishes import Wishes
from tests.qemu.guest import PAGE, REGION_PAGES, Guest, Stamper, Worker, Writer
from tests.qemu.inside import differing_pages
from tests.qemu.machine import Machine
from tests.qemu.setup import SETUPS, Setup

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kvmenc.capture import Capture
    from kvmenc.memory.words import Words
    from kvmenc.watch.wishes import OnPoint, Watched

pytestmark = pytest.mark.qemu

UNCAPPED = Parameters(max_bandwidth_bytes_per_s=1e12)
# What a busy host may keep a vCPU from running; a sample's interval is shorter only at first.
HELD_UP_MS = 60
# Here and there, with neighbours and without, on both sides of a word's and of a chunk's border.
GFNS = (300, 301, 302, 1023, 1024, 4095, 4097, 8191, 12000, 12063, 12064, 16383)


def nothing(_seconds: float, _pages: int) -> None:
    """Nobody is told of the points."""


def capture(
    qemu: Machine,
    seconds: float = 1,
    on_point: OnPoint = nothing,
    *,
    during_migration: bool = False,
) -> Watched:
    wishes = Wishes(seconds=seconds, during_migration=during_migration)
    with Qmp(qemu.second_socket) as monitor:
        return watch(monitor, wishes, on_point)


def at_point(number: int, act: Callable[[], object]) -> OnPoint:
    """Do something when a capture has that many points."""
    points = itertools.count(1)
    return lambda _seconds, _pages: act() if next(points) == number else None


def pages_of(words: Words, npages: int) -> set[int]:
    starts, ends = ranges(words, npages)
    return {page for start, end in zip(starts, ends, strict=True) for page in range(start, end)}


def dirty_pages(watched: Watched) -> dict[str, set[int]]:
    blocks = {block.name: block.npages for block in watched.capture.blocks}
    return {name: pages_of(watched.bitmaps["dirty", name], blocks[name]) for name in blocks}


@pytest.fixture
def looks_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """QEMU logs for 3 s after a window, as looks may come late: less where a test is alone."""
    monkeypatch.setattr("kvmenc.watch.schedule.SLACK_S", 2.0)


@pytest.mark.parametrize(
    ("board", "setup"),
    [
        pytest.param(board, *setup.values, id=f"{board}-{setup.id}")
        for board, setup in zip(("pc", "q35", "pc"), SETUPS, strict=True)
    ],
)
def test_the_pages_that_a_guest_wrote_are_found_page_for_page(
    tmp_path: Path, board: str, setup: Setup
) -> None:
    with Machine(tmp_path / "vm", Guest(100, writer=Stamper(GFNS)), board, setup) as qemu:
        watched = capture(qemu, on_point=at_point(2, lambda: qemu.stamp(1)))
    dirty = dirty_pages(watched)
    assert dirty.pop("pc.ram") == set(GFNS)
    assert not any(dirty.values())
    points = watched.capture.windows[0].points
    assert [sum(point.shared_pages) for point in points] == [0, 0] + [len(GFNS)] * (len(points) - 2)
    assert watched.capture.windows[0].ended_by == "time"
    assert watched.trouble is None


@pytest.mark.alone
@pytest.mark.usefixtures("looks_in_time")
def test_the_curve_of_a_busy_guest_is_that_which_is_known_within_one_interval(
    tmp_path: Path,
) -> None:
    writer = Writer(4032, 40, 10, hot_pages=500)
    with Machine(tmp_path / "vm", Guest(1, writer=writer)) as qemu:
        curve = capture(qemu, seconds=2).capture.curve
    known_ms = [point.ms for point in writer.curve]
    known_pages = [point.shared_pages for point in writer.curve]
    for point in curve:
        # A guest that was held up makes up for what it missed.
        error_ms = point.error_ms + HELD_UP_MS
        low, high = np.interp([point.ms - error_ms, point.ms + error_ms], known_ms, known_pages)
        assert low - 1 <= point.shared_pages <= high + 1, f"at {point.ms} ms"


def test_zero_pages_are_counted(tmp_path: Path) -> None:
    guest = Guest(1000, 3)
    with Machine(tmp_path / "vm", guest) as qemu:
        blocks = capture(qemu).capture.blocks
    assert {it.name: it.zero_pages for it in blocks} == {
        it.name: guest.zero_pages(it.name, it.npages) for it in blocks
    }


@pytest.mark.alone
@pytest.mark.usefixtures("looks_in_time")
@pytest.mark.parametrize("setup", SETUPS[:2])
def test_pages_that_a_device_wrote_are_in_a_curve_of_their_own(
    tmp_path: Path, setup: Setup
) -> None:
    first_gpa, npages = 0x3010 * PAGE, 700
    guest = Guest(REGION_PAGES, writer=Stamper(GFNS))
    with Machine(tmp_path / "vm", guest, setup=setup) as qemu:

        def write() -> None:
            qemu.device.fill(first_gpa, npages, 0xA5)
            qemu.stamp(1)

        watched = capture(qemu, seconds=3, on_point=at_point(8, write))
    device = watched.capture.device
    assert device is not None
    last = device.points[-1]
    # The mailbox too is written from outside the vCPU.
    written_pages = npages + 1
    assert last.pages[0] == last.low_pages == last.high_pages == written_pages, "all were compared"
    assert sum(last.pages) == written_pages
    assert dirty_pages(watched)["pc.ram"] == set(GFNS)


@pytest.mark.alone
@pytest.mark.usefixtures("looks_in_time")
def test_a_long_capture_is_made_of_windows_each_from_a_start_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kvmenc.watch.schedule.MAX_WINDOW_S", 1.0)
    with Machine(tmp_path / "vm", Guest(1, writer=Writer(2016, 504, 20))) as qemu:
        found = capture(qemu, seconds=3).capture
    assert [window.ended_by for window in found.windows] == ["time"] * 3
    assert {sum(window.points[-1].shared_pages) for window in found.windows} == {2016}
    starts_ms = [window.start_ms for window in found.windows]
    assert all(later - sooner > 1000 for sooner, later in itertools.pairwise(starts_ms))
    assert any("3 windows" in note for note in found.notes)


def test_private_by_contents_is_what_looks_random(tmp_path: Path) -> None:
    """The mailbox's page and 64 more hold random bytes; all others a word and zeros, or zeros."""
    first_gpa, npages = 0x3010 * PAGE, 64
    with Machine(tmp_path / "vm", Guest(100)) as qemu:
        qemu.memory.write(first_gpa, os.urandom(npages * PAGE))
        with Qmp(qemu.second_socket) as monitor:
            wishes = Wishes(seconds=1, private=SourceName.CONTENT)
            watched = watch(monitor, wishes, nothing)
    private = pages_of(watched.bitmaps["private", "pc.ram"], 16384)
    in_a_slot = private - set(range(0xC0, 0xE0)) - set(range(0xF0, 0x100))
    assert in_a_slot == set(range(0x3010, 0x3010 + npages))


@pytest.mark.parametrize("setup", SETUPS[:2])
def test_a_capture_does_not_make_the_guest_larger(tmp_path: Path, setup: Setup) -> None:
    """Most of its memory was never touched, and is not by us."""
    with Machine(tmp_path / "vm", Guest(100), setup=setup) as qemu:
        capture(qemu)  # QEMU's own memory for its answers is there from now on
        time.sleep(0.5)
        before = guest_memory(qemu)
        capture(qemu)
        assert guest_memory(qemu) == before


def guest_memory(qemu: Machine) -> dict[str, int]:
    """What the mapping of the guest's RAM holds, in KiB, and what its file has of the disk."""
    ram = qemu.find(0)
    assert ram is not None
    text = Path(f"/proc/{qemu.pid}/smaps").read_text()
    [entry] = [it for it in text.split("VmFlags") if f"{ram.host_addr:x}-" in it]
    wanted = ("Rss", "Swap", "Anonymous", "AnonHugePages")
    lines = [line.split() for line in entry.splitlines()]
    held = {it[0]: int(it[1]) for it in lines if it[0].removesuffix(":") in wanted}
    for fd in Path(f"/proc/{qemu.pid}/fd").iterdir():
        if "memfd:" in str(fd.readlink()):
            held["blocks"] = fd.stat().st_blocks
    return held


def test_looking_takes_no_bit_from_a_migration_that_comes_after(tmp_path: Path) -> None:
    """And the guest that arrives is the one that left."""
    with (
        Machine(tmp_path / "vm", Guest(1000, 3, Worker())) as qemu,
        qemu.twin(tmp_path / "twin") as twin,
    ):
        capture(qemu)
        qemu.migrate_to(twin.listen(), UNCAPPED)
        twin.wait_for_arrival()
        dumps = [one.dump(tmp_path / f"dump-{one.pid}") for one in (qemu, twin)]
        assert differing_pages(*dumps) == []
        assert qemu.memory.harm() == 0


def test_a_guest_saved_to_a_file_after_a_capture_is_the_one_that_comes_back(
    tmp_path: Path,
) -> None:
    saved = tmp_path / "saved"
    with Machine(tmp_path / "vm", Guest(1000, 3, Worker())) as qemu:
        capture(qemu)
        qemu.save(saved, UNCAPPED)
        with qemu.twin(tmp_path / "twin") as twin:
            twin.load(saved)
            dumps = [one.dump(tmp_path / f"dump-{one.pid}") for one in (qemu, twin)]
    assert differing_pages(*dumps) == []


@pytest.mark.alone
@pytest.mark.usefixtures("looks_in_time")
def test_the_curve_ends_where_a_migration_begins_and_the_migration_loses_nothing(
    tmp_path: Path,
) -> None:
    with (
        Machine(tmp_path / "vm", Guest(1000, 3, Worker())) as qemu,
        qemu.twin(tmp_path / "twin") as twin,
    ):
        slow = Parameters(max_bandwidth_bytes_per_s=2e6, downtime_limit_ms=1)
        uri = twin.listen()
        begin = at_point(8, lambda: qemu.start_migration(uri, slow))
        watched = capture(qemu, seconds=3, on_point=begin)
        assert watched.capture.windows[0].ended_by == "another-reader"
        assert any("another reader" in note for note in watched.capture.notes)
        qemu.command("migrate-set-parameters", max_bandwidth=10**12, downtime_limit=2000)
        twin.wait_for_arrival()
        dumps = [one.dump(tmp_path / f"dump-{one.pid}") for one in (qemu, twin)]
    assert differing_pages(*dumps) == []


@contextmanager
def migrating(qemu: Machine, twin: Machine) -> Iterator[None]:
    """A migration that goes on until it is left alone with all the bandwidth there is."""
    qemu.start_migration(twin.listen(), Parameters(max_bandwidth_bytes_per_s=1e5))
    try:
        yield
    finally:
        qemu.command("migrate-set-parameters", max_bandwidth=10**12, downtime_limit=2000)
        twin.wait_for_arrival()


def test_a_capture_is_refused_while_a_migration_is_going_on(tmp_path: Path) -> None:
    with (
        Machine(tmp_path / "vm", Guest(1000, 3, Worker())) as qemu,
        qemu.twin(tmp_path / "twin") as twin,
        migrating(qemu, twin),
        pytest.raises(HostError, match=r"a migration is going on .*--during-migration"),
    ):
        capture(qemu)


def test_during_a_migration_slot_numbers_must_be_given(tmp_path: Path) -> None:
    with (
        Machine(tmp_path / "vm", Guest(1000, 3, Worker())) as qemu,
        qemu.twin(tmp_path / "twin") as twin,
        migrating(qemu, twin),
        pytest.raises(HostError, match="--trace FILE"),
    ):
        capture(qemu, during_migration=True)


def captured_while_migrating(tmp_path: Path, bios_kib: int) -> Capture:
    """The migration must lose nothing, whether the capture is refused or not."""
    log = tmp_path / "slots"
    trace = ("-trace", "enable=kvm_set_user_memory", "-D", str(log))
    guest, setup = Guest(1000, 3, Worker()), Setup(bios_kib=bios_kib)
    with (
        Machine(tmp_path / "vm", guest, setup=replace(setup, extra=trace)) as qemu,
        Machine(tmp_path / "twin", guest, setup=replace(setup, incoming=True)) as twin,
    ):
        try:
            with migrating(qemu, twin), Qmp(qemu.second_socket) as monitor:
                wishes = Wishes(seconds=1, during_migration=True, trace=log)
                return watch(monitor, wishes, nothing).capture
        finally:
            dumps = [one.dump(tmp_path / f"dump-{one.pid}") for one in (qemu, twin)]
            assert differing_pages(*dumps) == []


def test_during_a_migration_looks_are_taken_where_the_rom_shows_that_they_are_safe(
    tmp_path: Path,
) -> None:
    """QEMU clears a ROM of whole words (of 64 pages) when it sends it, and not before."""
    found = captured_while_migrating(tmp_path, bios_kib=256)
    assert found.curve
    assert any("while a migration" in note for note in found.notes)


def test_during_a_migration_looks_are_refused_where_nothing_shows_that_they_are_safe(
    tmp_path: Path,
) -> None:
    """A smaller ROM is cleared at the first sync (cpu_physical_memory_sync_dirty_bitmap)."""
    with pytest.raises(HostError, match="cannot be shown to be safe"):
        captured_while_migrating(tmp_path, bios_kib=64)


def test_a_guest_is_left_as_it_was_found(tmp_path: Path) -> None:
    """The trace event and the log file are as before, no memory is left, the guest goes on."""
    log = tmp_path / "qemu.log"
    setup = Setup(extra=("-D", str(log)))
    with Machine(tmp_path / "vm", Guest(1000, 3, Worker()), setup=setup) as qemu:
        before = maps_of(qemu)
        capture(qemu)
        assert maps_of(qemu) == before
        event = qemu.command("trace-event-get-state", name="kvm_set_user_memory")
        assert "disabled" in str(event)
        qemu.trace_to(log, "kvm_set_user_memory")
        rounds = qemu.memory.progress()
        qemu.wait_for("the guest to go on", lambda: qemu.memory.progress() > rounds + 3)
        assert qemu.memory.harm() == 0


def maps_of(qemu: Machine) -> list[str]:
    """What is mapped where; heaps and thread stacks of QEMU's own may grow meanwhile."""
    lines = Path(f"/proc/{qemu.pid}/maps").read_text().splitlines()
    return [line for line in lines if line.split()[-1].startswith("/")]
