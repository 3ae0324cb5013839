"""The dirty ring."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakekvm import Host, guests
from tests.fakekvm import raw
from tests.fakekvm.raw import CAP_RING, CAP_RING_ACQ_REL, LOG, PAGE, FakeMachine, Guest

DIRTY, RESET, FULL, HALTED = 1, 2, 31, 5
REPEATING = Host(ring_logs_every_write=True)


def told(guest: Guest) -> list[int]:
    """The pages in the ring that are marked dirty."""
    return [offset for flags, _, offset in guest.entries() if flags & DIRTY]


def reset(guest: Guest) -> raw.Result:
    return guest.machine.ioctl(guest.vm, raw.RESET_RINGS)


def write_range(fake: FakeMachine, guest: Guest, pages: range) -> int:
    """Write, and return the reason of the exit."""
    fake.kernel.load_guest(guest.vm, 0, [guests.WritePages(pages, 1)])
    assert fake.ioctl(guest.vcpu, raw.RUN) == 0
    return guest.exit_reason()


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (0, "EINVAL"),
        (2048, "EINVAL"),
        (12288, "EINVAL"),
        (PAGE, 0),
        (1 << 20, 0),
        (1 << 21, "E2BIG"),
        (1 << 32, "EINVAL"),
        (1 << 32 | PAGE, 0),
    ],
)
@pytest.mark.parametrize("cap", [CAP_RING, CAP_RING_ACQ_REL])
def test_sizes_of_a_ring(fake: FakeMachine, cap: int, size: int, expected: raw.Result) -> None:
    vm = raw.new_vm(fake)
    assert fake.ioctl(vm, raw.ENABLE_CAP, raw.enable_cap(cap, size)) == expected


def test_a_ring_must_hold_more_than_the_cpu_s_own_log() -> None:
    with FakeMachine(Host(ring_reserved_entries=64 + 512)) as fake:
        vm = raw.new_vm(fake)
        assert fake.ioctl(vm, raw.ENABLE_CAP, raw.enable_cap(CAP_RING, 8192)) == "EINVAL"
        assert fake.ioctl(vm, raw.ENABLE_CAP, raw.enable_cap(CAP_RING, 16384)) == 0


def test_a_ring_is_enabled_once_and_before_any_vcpu(fake: FakeMachine) -> None:
    guest = Guest(fake, ring_bytes=PAGE)
    assert guest.enable(CAP_RING, PAGE) == "EINVAL"
    assert guest.enable(CAP_RING, 1 << 21) == "E2BIG", "the size is looked at first"
    late = Guest(fake)
    fake.close(late.vcpu)
    assert late.enable(CAP_RING, PAGE) == "EINVAL"
    assert reset(late) == "EINVAL", "no ring"


def test_a_ring_takes_the_place_of_the_bitmap(fake: FakeMachine) -> None:
    guest = Guest(fake, ring_bytes=PAGE)
    assert guest.get_log(slot=40000) == "ENXIO"
    assert guest.clear_log(1, 1) == "ENXIO"


def test_entries_name_slot_and_page(fake: FakeMachine) -> None:
    guest = Guest(fake, ring_bytes=PAGE)
    assert guest.region(slot=3, gfn=0x1000) == 0
    assert guest.region(slot=4, gfn=0x2000, flags=0) == 0
    guest.write([5, 0x1007, 0x2001, 6])
    assert guest.entries()[:4] == [(DIRTY, 0, 5), (DIRTY, 3, 7), (DIRTY, 0, 6), (0, 0, 0)]


def test_hardware_tells_a_page_once_until_it_is_reset(fake: FakeMachine) -> None:
    guest = Guest(fake, ring_bytes=PAGE)
    guest.write([5, 7, 5, 5, 7])
    assert told(guest) == [5, 7]
    guest.write([5, 9])
    assert told(guest) == [5, 7, 9]
    guest.harvest([0])
    guest.write([5])
    assert told(guest) == [7, 9], "harvested, but not reset: the write is not told again"
    assert reset(guest) == 1
    guest.write([5, 7])
    assert told(guest) == [7, 9, 5]


def test_an_emulating_host_tells_every_write() -> None:
    with FakeMachine(REPEATING) as fake:
        guest = Guest(fake, ring_bytes=PAGE)
        guest.write([5, 7, 5])
        assert told(guest) == [5, 7, 5]


def test_entries_are_taken_back_in_order_and_only_if_harvested(fake: FakeMachine) -> None:
    guest = Guest(fake, ring_bytes=PAGE)
    guest.write([5, 7, 9])
    assert reset(guest) == 0
    guest.harvest([1])
    assert reset(guest) == 0
    guest.harvest([0], flags=RESET | DIRTY)
    assert reset(guest) == 2
    assert guest.entries()[:3] == [(0, 0, 5), (0, 0, 7), (DIRTY, 0, 9)]
    assert reset(guest) == 0


@pytest.mark.parametrize("host", [Host(), REPEATING], ids=["hardware", "emulating"])
def test_a_full_ring_stops_the_vcpu_until_it_is_emptied(host: Host) -> None:
    with FakeMachine(host) as fake:
        guest = Guest(fake, npages=1000, ring_bytes=PAGE)
        assert write_range(fake, guest, range(1000)) == FULL
        usable = 256 - 64
        assert told(guest) == list(range(usable))
        assert guest.area.word(usable) == 0, "it went no further"
        assert fake.ioctl(guest.vcpu, raw.RUN) == 0
        assert guest.exit_reason() == FULL
        guest.harvest(range(10))
        assert reset(guest) == 10
        assert fake.ioctl(guest.vcpu, raw.RUN) == 0
        assert (guest.exit_reason(), len(told(guest))) == (FULL, usable)


def test_no_page_is_lost_however_small_the_ring(fake: FakeMachine) -> None:
    guest = Guest(fake, npages=1000, ring_bytes=PAGE)
    reason, found, taken = write_range(fake, guest, range(1000)), [], 0
    while True:
        entries = guest.entries()
        found += told(guest)
        guest.harvest([n for n, entry in enumerate(entries) if entry[0] & DIRTY])
        taken += raw.number(reset(guest))
        if reason == HALTED:
            break
        assert fake.ioctl(guest.vcpu, raw.RUN) == 0
        reason = guest.exit_reason()
    assert sorted(found) == list(range(1000))
    assert taken == 1000


def test_a_slot_that_is_gone_or_new_does_not_confuse_a_reset(fake: FakeMachine) -> None:
    guest = Guest(fake, ring_bytes=PAGE)
    guest.write([5])
    assert guest.region(npages=0) == 0
    guest.harvest([0])
    assert reset(guest) == 1
    assert guest.region(npages=4) == 0
    guest.write([3])
    assert told(guest) == [3]


def test_entries_that_userspace_invents_do_not_reach_beyond_a_slot(fake: FakeMachine) -> None:
    guest = Guest(fake, ring_bytes=PAGE)
    guest.write([5])
    assert guest.ring is not None
    guest.ring[:16] = b"\x02\0\0\0" + b"\0\0\0\0" + b"\xff" * 8
    assert reset(guest) == 1


def test_a_slot_that_moved_tells_everything_anew(fake: FakeMachine) -> None:
    guest = Guest(fake, ring_bytes=PAGE)
    guest.write([5])
    guest.region(gfn=0x1000)
    guest.write([0x1005])
    assert told(guest) == [5, 5]


def test_counters_that_userspace_confused_stop_no_vcpu_that_tells_nothing(
    fake: FakeMachine,
) -> None:
    guest = Guest(fake, ring_bytes=PAGE)
    assert guest.region(slot=1, gfn=0x1000, flags=0) == 0
    guest.write([5])
    guest.harvest([0, 1])
    assert reset(guest) == 2
    guest.write([0x1000])
    assert guest.exit_reason() == HALTED


def test_that_it_was_full_once_is_forgotten_when_the_guest_goes_on(fake: FakeMachine) -> None:
    """kvm_dirty_ring_check_request drops the request; found by the conformance machine."""
    guest = Guest(fake, npages=1000, ring_bytes=PAGE)
    usable = 256 - 64
    assert write_range(fake, guest, range(usable)) == FULL
    guest.harvest(range(usable))
    assert reset(guest) == usable
    assert fake.ioctl(guest.vcpu, raw.RUN) == 0
    assert guest.exit_reason() == HALTED
    guest.harvest([usable, usable + 1])  # not there: the counters say that the ring is full
    assert reset(guest) == 2
    assert write_range(fake, guest, range(500, 501)) == FULL
    assert guest.area.word(500) == 1, "only writing finds that"


def test_logging_that_is_turned_off_and_on_tells_everything_anew(fake: FakeMachine) -> None:
    guest = Guest(fake, ring_bytes=PAGE)
    guest.write([5])
    guest.region(flags=0)
    guest.write([6])
    guest.region(flags=LOG)
    guest.write([5])
    assert told(guest) == [5, 5]


def test_every_vcpu_has_a_ring_and_one_reset_serves_all(fake: FakeMachine) -> None:
    guest = Guest(fake, ring_bytes=PAGE)
    second = raw.number(fake.ioctl(guest.vm, raw.CREATE_VCPU, 1))
    guest.write([5])
    fake.kernel.load_guest(guest.vm, 1, [guests.WritePages(range(5, 8), 2)])
    assert fake.ioctl(second, raw.RUN) == 0
    other = raw.map_ring(second, PAGE)
    assert [offset for flags, _, offset in raw.ring_entries(other) if flags] == [6, 7]
    guest.harvest([0])
    raw.harvest(other, [0, 1])
    assert reset(guest) == 3


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.lists(st.integers(0, 99), max_size=40), st.integers(0, 60))))
def test_any_harvest_gives_exactly_the_pages_written(
    rounds: list[tuple[list[int], int]],
) -> None:
    """The oracle is a list of entries and the set of pages that need not be told."""
    with FakeMachine() as fake:
        guest = Guest(fake, npages=100, ring_bytes=PAGE)
        waiting: list[int] = []
        writable: set[int] = set()
        first = 0
        for written, harvested in rounds:
            guest.write(written)
            for page in written:
                if page not in writable:
                    waiting.append(page)
                    writable.add(page)
            entries = guest.entries()
            ring = [entries[(first + n) % 256][2] for n in range(len(waiting))]
            assert ring == waiting
            count = min(harvested, len(waiting))
            guest.harvest([(first + n) % 256 for n in range(count)])
            assert reset(guest) == count
            writable -= set(waiting[:count])
            waiting = waiting[count:]
            first += count
