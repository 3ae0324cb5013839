"""KVM_GET_DIRTY_LOG and KVM_CLEAR_DIRTY_LOG."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakekvm import Host, guests, host_named
from tests.fakekvm import raw
from tests.fakekvm.raw import CAP_MANUAL, LOG, PAGE, READONLY, Area, Buffer, FakeMachine, Guest

if TYPE_CHECKING:
    from collections.abc import Callable


def all_pages(npages: int) -> str:
    return str(list(range(npages)))


def test_reading_takes_the_bits(fake: FakeMachine) -> None:
    guest = Guest(fake)
    guest.write([5, 70, 5, 99])
    assert guest.get_log() == "[5, 70, 99]"
    assert guest.get_log() == "[]"


@pytest.mark.parametrize("npages", [1, 63, 64, 65, 100, 128, 129])
def test_whole_words_are_written_and_nothing_behind_them(fake: FakeMachine, npages: int) -> None:
    guest = Guest(fake, npages=npages)
    guest.write([npages - 1])
    size = (npages + 63) // 64 * 8
    out = Buffer(b"\xaa" * (size + 16))
    assert fake.ioctl(guest.vm, raw.GET_DIRTY_LOG, raw.dirty_log(0, out.address)) == 0
    assert int.from_bytes(out.bytes[:size], "little") == 1 << (npages - 1)
    assert out.bytes[size:] == b"\xaa" * 16


def test_who_asks_for_what_is_not_there_is_told_so(fake: FakeMachine) -> None:
    guest = Guest(fake)
    guest.region(slot=1, flags=0, gfn=0x1000)
    assert guest.get_log(slot=1) == "ENOENT", "logging is off"
    assert guest.get_log(slot=2) == "ENOENT", "no such slot"
    assert guest.get_log(slot=32764) == "EINVAL"
    assert guest.get_log(slot=1 << 16) == "EINVAL"
    assert fake.ioctl(guest.vm, raw.GET_DIRTY_LOG) == "EFAULT"


def test_a_bad_buffer_loses_the_bits(fake: FakeMachine) -> None:
    guest = Guest(fake)
    guest.write([5])
    assert guest.get_log(address=0) == "EFAULT"
    assert guest.get_log() == "[]"


def test_a_bad_buffer_loses_nothing_with_manual_protect(fake: FakeMachine) -> None:
    guest = Guest(fake, manual=1)
    guest.write([5])
    assert guest.get_log(address=0) == "EFAULT"
    assert guest.get_log() == "[5]"


def test_with_manual_protect_only_a_clear_takes_bits(fake: FakeMachine) -> None:
    guest = Guest(fake, manual=1)
    guest.write([5, 6, 70])
    assert guest.get_log() == guest.get_log() == "[5, 6, 70]"
    assert guest.clear_log(64, 0, (1 << 5 | 1 << 9).to_bytes(8, "little")) == 0
    assert guest.get_log() == "[6, 70]"
    guest.write([5])
    assert guest.get_log() == "[5, 6, 70]"


def test_a_clear_works_without_manual_protect_too(fake: FakeMachine) -> None:
    guest = Guest(fake)
    guest.write([5, 70])
    assert guest.clear_log(36, 64) == 0
    assert guest.get_log() == "[5]"


@pytest.mark.parametrize(
    ("npages", "first", "expected"),
    [
        (64, 0, 0),
        (36, 64, 0),
        (100, 0, 0),
        (0, 0, 0),
        (0, 64, 0),
        (64, 1, "EINVAL"),
        (63, 0, "EINVAL"),
        (65, 0, "EINVAL"),
        (101, 0, "EINVAL"),
        (37, 64, "EINVAL"),
        (0, 128, "EINVAL"),
        (0, 1 << 63, "EINVAL"),
        ((1 << 32) - 1, 0, "EINVAL"),
    ],
)
def test_a_clear_covers_whole_words_or_reaches_the_end(
    fake: FakeMachine, npages: int, first: int, expected: raw.Result
) -> None:
    assert Guest(fake, npages=100).clear_log(npages, first) == expected


def test_a_clear_checks_in_the_kernel_s_order(fake: FakeMachine) -> None:
    guest = Guest(fake)
    guest.region(slot=1, flags=0, gfn=0x1000)
    assert guest.clear_log(1, 1, slot=32764) == "EINVAL"
    assert guest.clear_log(1, 1, slot=9) == "EINVAL", "the page before the slot"
    assert guest.clear_log(1, 0, slot=9) == "ENOENT", "the slot before the length"
    assert guest.clear_log(1, 0, slot=1) == "ENOENT"
    assert guest.clear_log(63, 0, 0) == "EINVAL", "the length before the buffer"
    assert guest.clear_log(64, 0, 0) == "EFAULT"
    assert guest.clear_log(0, 0, 0) == 0


def test_a_clear_from_a_bad_buffer_clears_nothing(fake: FakeMachine) -> None:
    guest = Guest(fake)
    guest.write([5, 70])
    area = Area(2)
    area.map[PAGE - 8 : PAGE] = b"\xff" * 8
    area.unmap(1, 1)
    assert guest.clear_log(100, 0, area.address + PAGE - 8) == "EFAULT"
    assert guest.get_log() == "[5, 70]"


def test_initially_set_begins_with_ones_and_none_past_the_slot(fake: FakeMachine) -> None:
    guest = Guest(fake, npages=100, manual=3)
    assert guest.get_log() == all_pages(100)
    assert guest.clear_log(100, 0) == 0
    assert guest.get_log() == "[]"
    assert guest.region(flags=0) == guest.region(flags=LOG) == 0
    assert guest.get_log() == all_pages(100)


@pytest.mark.parametrize(
    ("arg", "flags", "expected"),
    [(0, 0, 0), (1, 0, 0), (3, 0, 0), (2, 0, "EINVAL"), (4, 0, "EINVAL"), (1, 1, "EINVAL")],
)
def test_manual_protect_takes_the_bits_that_make_sense(
    fake: FakeMachine, arg: int, flags: int, expected: raw.Result
) -> None:
    assert Guest(fake).enable(CAP_MANUAL, arg, flags) == expected


def test_a_host_without_initially_set_refuses_it() -> None:
    old = Host(capabilities={**Host().capabilities, CAP_MANUAL: 1})
    with FakeMachine(old) as fake:
        assert Guest(fake).enable(CAP_MANUAL, 3) == "EINVAL"
        assert Guest(fake).enable(CAP_MANUAL, 1) == 0


def test_a_kernel_that_is_older_knows_no_clear() -> None:
    capabilities = {**host_named("sev-rfc-2018").capabilities, CAP_MANUAL: 0}
    with FakeMachine(Host(capabilities=capabilities)) as fake:
        guest = Guest(fake)
        assert guest.enable(CAP_MANUAL, 1) == "EINVAL"
        assert guest.clear_log(64, 0) == "ENOTTY"


def test_the_log_ends_with_logging_and_begins_empty(fake: FakeMachine) -> None:
    guest = Guest(fake)
    guest.write([5])
    guest.region(flags=0)
    assert guest.get_log() == "ENOENT"
    guest.write([6])
    guest.region(flags=LOG)
    assert guest.get_log() == "[]"


def test_a_moved_slot_keeps_its_log(fake: FakeMachine) -> None:
    guest = Guest(fake)
    guest.write([5])
    guest.region(gfn=0x1000)
    assert guest.get_log() == "[5]"


def test_what_the_guest_cannot_write_does_not_get_dirty(fake: FakeMachine) -> None:
    guest = Guest(fake, npages=64)
    guest.region(slot=1, flags=LOG | READONLY, gfn=0x100)
    guest.write([0x105, 0x200])
    assert guest.get_log(slot=1) == "[]"
    assert guest.get_log(slot=0) == "[]"


PAGES = st.lists(st.integers(0, 199), max_size=30)
WORDS = st.integers(0, (1 << 256) - 1)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("write"), PAGES),
            st.tuples(st.just("read"), st.booleans()),
            st.tuples(st.just("clear"), WORDS),
            st.tuples(st.just("mode"), st.sampled_from([0, 1])),
        )
    )
)
def test_any_sequence_of_calls_reads_what_a_set_of_pages_would_hold(
    calls: list[tuple[str, object]],
) -> None:
    with FakeMachine() as fake:
        guest = Guest(fake, npages=200)
        held: set[int] = set()
        manual = 0
        for name, value in calls:
            if name == "write":
                pages = np.array(value, np.int64)
                fake.kernel.load_guest(guest.vm, 0, [guests.WritePages(pages, 1)])
                assert fake.ioctl(guest.vcpu, raw.RUN) == 0
                held |= set(pages.tolist())
            elif name == "read":
                result = guest.get_log(address=0 if value else None)
                assert result == ("EFAULT" if value else str(sorted(held)))
                held = held if manual else set()
            elif name == "clear":
                assert isinstance(value, int)
                assert guest.clear_log(200, 0, value.to_bytes(32, "little")) == 0
                held -= {page for page in range(200) if value >> page & 1}
            else:
                assert isinstance(value, int)
                manual = value
                assert guest.enable(CAP_MANUAL, manual) == 0


@pytest.mark.parametrize("pages", [lambda: range(500), lambda: np.arange(499, -1, -1)])
def test_a_guest_s_writes_are_really_in_its_memory(
    fake: FakeMachine, pages: Callable[[], range]
) -> None:
    guest = Guest(fake, npages=600)
    fake.kernel.load_guest(guest.vm, 0, [guests.WritePages(pages(), 0xABCDEF)])
    assert fake.ioctl(guest.vcpu, raw.RUN) == 0
    assert {guest.area.word(page) for page in range(500)} == {0xABCDEF}
    assert guest.area.word(500) == 0
    assert guest.get_log() == all_pages(500)
