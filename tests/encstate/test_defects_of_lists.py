"""The defects of lists of shared ranges that others keep, and kvmenc's own list, which has none.

Every defect is shown by a short history in a model of the other code, then kvmenc's right answer.
The oracle is a set of gfns. docs/shared-lists.md shows what is found here; its tables are compared
with it, number by number.

=====  ========================================================  =============================
L1     the whole attributes word is taken for "private"          test_l1
L2     a range made longer does not absorb what follows it       EXAMPLES
L3     a range that begins before another is put in front of it  EXAMPLES
L4     making private stops at the first node that reaches far   EXAMPLES: it takes L2 or L3 first
       enough
L5     making private stops at the first node that goes whole    EXAMPLES
L6     a reset guest's list is kept                              test_l6
L7     gfns go over the wire in 32 bits                          test_l7
L8     a list from the wire is believed, whatever ends it        test_l8
K1     the kernel's list of v10: an end is exclusive or not      EXAMPLES
K2     the same: a part that is announced again shortens it      EXAMPLES
K3     the same: a range over two nodes makes nothing private    EXAMPLES
-      vCPU threads change the list, the migration's thread      no model; ours: test_a_list_sees
       reads it, no lock
=====  ========================================================  =============================
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from functools import cache, reduce
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvmenc import uapi
from kvmenc.encstate.gfnstate import GfnState
from kvmenc.encstate.hypercalls import MapGpaTracker
from kvmenc.memory.slots import MemSlot
from tests.encstate.bits import bits_of
from tests.encstate.models_of_lists import (
    END,
    MORE,
    Announcement,
    KernelList,
    QemuList,
    Version,
    gfns_in,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Set as AbstractSet

    from tests.encstate.models_of_lists import Code, Ranges

    State = tuple[Code, frozenset[int]]
    Level = dict[State, tuple[int, "History"]]

PAGE_OF_DOCS = Path(__file__).parents[2] / "docs" / "shared-lists.md"

History = list[Announcement]
AnyCode = TypeVar("AnyCode", bound="Code")
ATTRIBUTES = {True: uapi.KVM_MAP_GPA_RANGE_ENCRYPTED, False: uapi.KVM_MAP_GPA_RANGE_DECRYPTED}


def shared(start: int, end: int) -> Announcement:
    return Announcement(start, end, private=False)


def private(start: int, end: int) -> Announcement:
    return Announcement(start, end, private=True)


class Roads(NamedTuple):
    """Pages that a migration would send by the wrong road."""

    private_raw: AbstractSet[int]
    shared_through_firmware: AbstractSet[int]

    @property
    def pages(self) -> int:
        return len(self.private_raw) + len(self.shared_through_firmware)


def then(right: frozenset[int], said: Announcement) -> frozenset[int]:
    """The oracle: what is shared, one announcement later."""
    span = range(said.start, said.end)
    return right.difference(span) if said.private else right.union(span)


def truth(history: History) -> frozenset[int]:
    """What is shared after ``history``."""
    return reduce(then, history, frozenset())


def after(code: AnyCode, history: History) -> AnyCode:
    for said in history:
        code = code.after(said)
    return code


def roads(code: Code, right: frozenset[int]) -> Roads:
    believed = gfns_in(code.ranges)
    return Roads(believed - right, right - believed)


def ranges_of(state: GfnState | MapGpaTracker) -> Ranges:
    starts, ends = state.shared_ranges()
    return tuple(zip(starts.tolist(), ends.tolist(), strict=True))


def announce(tracker: MapGpaTracker, said: Announcement) -> None:
    assert tracker.apply(said.start << 12, said.end - said.start, ATTRIBUTES[said.private]) == 0


@dataclass(frozen=True)
class Ours:
    """kvmenc's tracker as a ``Code``: before each announcement, made anew from its own list."""

    slots: tuple[MemSlot, ...]
    ranges: Ranges = ()

    def after(self, said: Announcement) -> Ours:
        return _ours_after(self, said)


@cache
def _ours_after(ours: Ours, said: Announcement) -> Ours:
    tracker = MapGpaTracker(ours.slots)
    starts, ends = np.array(ours.ranges, np.int64).reshape(-1, 2).T
    tracker.apply_many(starts, ends, private=False)
    announce(tracker, said)
    return replace(ours, ranges=ranges_of(tracker))


V4, HYGON, V10 = QemuList(Version.V4), QemuList(Version.HYGON), KernelList()
OTHERS: dict[str, Code] = {"v4": V4, "Hygon": HYGON, "v10": V10}


class Example(NamedTuple):
    """A history of at most four announcements, and the pages that ``code`` gets wrong after it."""

    code: Code
    history: History
    wrong: Roads


EXAMPLES = {
    "L2": Example(
        HYGON,
        [shared(0, 1), shared(2, 3), shared(1, 3), private(0, 3)],
        Roads({2}, set()),
    ),
    "L3": Example(HYGON, [shared(1, 2), shared(0, 2), private(0, 2)], Roads({1}, set())),
    "L3, single pages": Example(
        HYGON, [shared(1, 2), shared(0, 1), shared(1, 2), private(1, 2)], Roads({1}, set())
    ),
    "L4, a part": Example(HYGON, [shared(1, 2), shared(0, 3), private(0, 2)], Roads({1}, set())),
    "L5": Example(V4, [shared(0, 1), shared(2, 3), private(0, 3)], Roads({2}, set())),
    "K1": Example(V10, [shared(0, 3), private(0, 1)], Roads(set(), {1})),
    "K2": Example(V10, [shared(0, 2), shared(0, 1)], Roads(set(), {1})),
    "K3": Example(V10, [shared(0, 1), shared(2, 3), private(0, 3)], Roads({0, 2}, set())),
}
SMALL = (MemSlot(0, 0, 6, 0),)


@pytest.mark.parametrize("name", EXAMPLES)
def test_each_defect_sends_pages_by_the_wrong_road_and_kvmenc_none(name: str) -> None:
    code, history, wrong = EXAMPLES[name]
    assert roads(after(code, history), truth(history)) == wrong
    assert roads(after(Ours(SMALL), history), truth(history)) == (set(), set())


@pytest.mark.parametrize("name", EXAMPLES)
def test_before_its_last_announcement_each_list_is_still_right(name: str) -> None:
    code, history, _ = EXAMPLES[name]
    assert roads(after(code, history[:-1]), truth(history[:-1])).pages == 0


def test_l2_and_l3_leave_nodes_that_overlap() -> None:
    assert after(HYGON, EXAMPLES["L2"].history[:-1]).ranges == ((0, 3), (2, 3))
    assert after(HYGON, EXAMPLES["L3"].history[:-1]).ranges == ((0, 2), (1, 2))


def test_l4_leaves_the_list_out_of_order() -> None:
    assert after(HYGON, EXAMPLES["L4, a part"].history).ranges == ((2, 3), (1, 2))


def test_l5_hygon_mended() -> None:
    assert after(HYGON, EXAMPLES["L5"].history).ranges == ()


@pytest.mark.parametrize("hint", [uapi.KVM_MAP_GPA_RANGE_PAGE_SZ_2M, 2, 15])
def test_l1_a_page_size_hint_makes_nothing_private(hint: int) -> None:
    """512 pages shared at once, and the guest says that they are one large page."""
    assert HYGON.hypercall(0, 512, 0).ranges == ((0, 512),)
    assert HYGON.hypercall(0, 512, hint).ranges == ()

    tracker = MapGpaTracker([MemSlot(0, 0, 600, 0)])
    tracker.apply(0, 512, hint)
    assert ranges_of(tracker) == ((0, 512),)
    tracker.apply(1 << 12, 1, hint | uapi.KVM_MAP_GPA_RANGE_ENCRYPTED)
    assert ranges_of(tracker) == ((0, 1), (2, 512))


def test_l6_hygon_forgets_all_on_a_reset_even_overlaps_and_v4_nothing() -> None:
    history = [shared(1, 2), shared(0, 2), shared(7, 9)]
    assert after(HYGON, history).ranges == ((0, 2), (1, 2), (7, 9))
    reset = [QemuList(it, ranges=after(HYGON, history).ranges).reset().ranges for it in Version]
    assert reset == [((0, 2), (1, 2), (7, 9)), ()]

    tracker = MapGpaTracker([MemSlot(0, 0, 70, 0)])
    for one in history:
        announce(tracker, one)
    tracker.reset()
    assert ranges_of(tracker) == ()
    announce(tracker, shared(3, 4))
    assert ranges_of(tracker) == ((3, 4),)


def test_l7_gfns_beyond_16_tib_are_told_as_they_are() -> None:
    gfn = (1 << 32) + 5  # 16 TiB, and 5 pages
    arrived, _ = HYGON.loaded(HYGON.after(shared(gfn, gfn + 2)).saved())
    assert arrived.ranges == ((5, 7),)

    tracker = MapGpaTracker([MemSlot(0, 0, 10, 0), MemSlot(1, gfn - 1, 10, 0)])
    announce(tracker, shared(gfn, gfn + 2))
    assert ranges_of(tracker) == ((gfn, gfn + 2),)


def test_l8_a_list_from_the_wire_is_appended_unread() -> None:
    """A range that ends before it starts, a second one inside the first, an end of any number."""
    words = [MORE, 9, 4, MORE, 0, 8, MORE, 2, 3, 0xDEAD, MORE]
    arrived, read = HYGON.after(shared(0, 2)).loaded(words)
    assert arrived.ranges == ((0, 2), (9, 4), (0, 8), (2, 3))
    assert words[read - 1] == 0xDEAD
    assert HYGON.loaded([END]) == (HYGON, 1)


def test_a_saved_list_below_16_tib_arrives_as_it_was() -> None:
    """So that the model of the wire is wrong for its defects, and not because it is nonsense."""
    sent = after(HYGON, [shared(1, 2), shared(0, 2), shared(7, 9)])
    assert HYGON.loaded(sent.saved())[0] == sent


@dataclass
class Found:
    """What all histories up to some length come to; the shortest are the first found."""

    histories: int = 0
    wrong: int = 0
    raw: int = 0
    firmware: int = 0
    first_raw: History | None = None
    first_firmware: History | None = None

    def add(self, wrong: Roads, histories: int, history: History) -> None:
        self.histories += histories
        self.wrong += histories * bool(wrong.pages)
        self.raw += histories * bool(wrong.private_raw)
        self.firmware += histories * bool(wrong.shared_through_firmware)
        if wrong.private_raw and self.first_raw is None:
            self.first_raw = history
        if wrong.shared_through_firmware and self.first_firmware is None:
            self.first_firmware = history


def every(ngfns: int, longest: int) -> list[Announcement]:
    """Every announcement about the first gfns, shortest first."""
    spans = [(start, start + n) for n in range(1, longest + 1) for start in range(ngfns - n + 1)]
    return [Announcement(*span, kind) for span in spans for kind in (False, True)]


def search(code: Code, announcements: list[Announcement], length: int) -> Found:
    """All histories of 1 to ``length`` announcements, shortest first.

    Those that lead to the same list and the same truth go on as one, with their number.
    """
    found = Found()
    level: Level = {(code, frozenset()): (1, [])}
    for _ in range(length):
        level = _next(level, announcements)
        for (it, right), (histories, history) in level.items():
            found.add(roads(it, right), histories, history)
    return found


def _next(level: Level, announcements: list[Announcement]) -> Level:
    reached: Level = {}
    for (code, right), (histories, history) in level.items():
        for said in announcements:
            state = code.after(said), then(right, said)
            before, first = reached.get(state) or (0, [*history, said])
            reached[state] = before + histories, first
    return reached


CODES: dict[str, Code] = {**OTHERS, "kvmenc": Ours(SMALL)}
EVERY_RANGE, SINGLE_PAGES = every(6, 6), every(6, 1)


@cache
def all_short(name: str) -> Found:
    return search(CODES[name], EVERY_RANGE, 3)


@cache
def all_of_single_pages(name: str) -> Found:
    return search(CODES[name], SINGLE_PAGES, 5)


def test_the_search_counts_as_one_by_one_would() -> None:
    """Two announcements, four gfns: small enough to count plainly."""
    announcements = every(4, 4)
    histories = [[it] for it in announcements] + [
        [first, second] for first in announcements for second in announcements
    ]
    for code in OTHERS.values():
        plain = Found()
        for history in histories:
            plain.add(roads(after(code, history), truth(history)), 1, history)
        assert search(code, announcements, 2) == plain


# Of 75,894 histories: wrong, with private pages sent raw, with shared ones through the firmware.
SHORT = {
    "v4": (1_610, 1_610, 0),
    "Hygon": (896, 896, 0),
    "v10": (27_818, 15_067, 13_818),
    "kvmenc": (0, 0, 0),
}
# Of 271,452.
SINGLE = {
    "v4": (255, 255, 0),
    "Hygon": (255, 255, 0),
    "v10": (14_584, 245, 14_574),
    "kvmenc": (0, 0, 0),
}


@pytest.mark.parametrize("name", CODES)
def test_of_all_short_histories_so_many_are_wrong(name: str) -> None:
    found = all_short(name)
    assert found.histories == 42 + 42**2 + 42**3
    assert (found.wrong, found.raw, found.firmware) == SHORT[name]


@pytest.mark.parametrize("name", CODES)
def test_of_all_short_histories_of_single_pages_so_many_are_wrong(name: str) -> None:
    found = all_of_single_pages(name)
    assert found.histories == sum(12**n for n in range(1, 6))
    assert (found.wrong, found.raw, found.firmware) == SINGLE[name]


# A guest of 3 MiB and a hole for devices. What is large in a real one is small here, so that a set
# of gfns is a fast oracle: a large page is 16 pages.
RAM = ((0, 0x9F), (0x100, 0x200), (0x300, 0x400))
DEVICES = (0x200, 0x300)
SLOTS = (MemSlot(0, 0, 0x200, 0), MemSlot(1, 0x300, 0x100, 0))
LARGE = 16
LARGE_PAGES = [*range(0x100, 0x200, LARGE), *range(0x300, 0x400, LARGE)]


def firmware(random: Random) -> History:
    """As AMD's OVMF may do: devices are shared once; buffers for DMA are shared and returned."""
    said = [shared(*DEVICES)]
    mapped: list[tuple[int, int]] = []
    for place in random.sample(range(0x100, 0x200, 16), random.randrange(1, 5)):
        mapped.append((place, place + random.randrange(1, 17)))
        said.append(shared(*mapped[-1]))
        if random.randrange(2):
            said.append(private(*mapped.pop(random.randrange(len(mapped)))))
    return said + [private(*it) for it in mapped]


def linux(random: Random) -> History:
    """One boot: E820, .bss..decrypted, per-CPU data, the bounce buffer, what is unused, drivers."""
    bss, bounce, percpu, buffers = random.sample(LARGE_PAGES, 4)
    said = [private(*it) for it in RAM]
    said.append(shared(bss, bss + LARGE))
    for cpu in range(4):  # three variables, of one page: so it is announced three times
        said += [shared(percpu + 4 * cpu, percpu + 4 * cpu + 1)] * 3
    said.append(shared(bounce, bounce + LARGE))
    said += [private(page, page + 1) for page in range(bss + 2, bss + LARGE)]
    return said + _drivers(random, buffers)


def _drivers(random: Random, base: int) -> History:
    """Buffers of a few pages, announced page by page, only of private memory; some returned."""
    said, places = [], random.sample(range(base, base + LARGE, 4), LARGE // 4)
    held: list[range] = []
    for place in places:
        held.append(range(place, place + random.randrange(1, 5)))
        said += [shared(page, page + 1) for page in held[-1]]
        if random.randrange(2):
            said += [private(page, page + 1) for page in held.pop(random.randrange(len(held)))]
    return said


def boots(random: Random) -> History:
    return firmware(random) + linux(random)


def boots_again(random: Random) -> History:
    """By kexec, or by a reset that nobody tells the list of: another kernel, in other places."""
    return boots(random) + linux(random)


def shares_twice(random: Random) -> History:
    """A driver that shares ranges that are partly shared, and returns some of what it shared."""
    said, held = boots(random), [(0x300, 0x301)]
    for _ in range(12):
        start = random.randrange(0x300, 0x330)
        held.append((start, start + random.randrange(1, 17)))
        said.append(shared(*held[-1]))
        if random.randrange(2):
            said.append(private(*random.choice(held)))
    return said


def anything(random: Random) -> History:
    said = []
    for _ in range(random.randrange(1, 41)):
        start = random.randrange(0x100, 0x140)
        kind = random.randrange(2) == 1
        said.append(Announcement(start, start + random.randrange(1, 17), private=kind))
    return said


FAMILIES: dict[str, Callable[[Random], History]] = {
    "Linux boots": boots,
    "Linux boots, then another one": boots_again,
    "a driver shares what is shared": shares_twice,
    "anything, up to 40 announcements": anything,
}
GENERATED = 50
KNOWN = {gfn for slot in SLOTS for gfn in range(slot.base_gfn, slot.end_gfn)}


@cache
def generated(family: str) -> tuple[History, ...]:
    return tuple(FAMILIES[family](Random(f"{family} {seed}")) for seed in range(GENERATED))


def by_kvmenc(history: History, slots: tuple[MemSlot, ...]) -> MapGpaTracker:
    tracker = MapGpaTracker(slots)
    for said in history:
        announce(tracker, said)
    return tracker


def finding(name: str, history: History) -> Roads:
    """Of the pages that a migration sends: those of slots."""
    right = truth(history) & KNOWN
    if name == "kvmenc":
        believed = gfns_in(ranges_of(by_kvmenc(history, SLOTS)))
    else:
        believed = gfns_in(after(OTHERS[name], history).ranges) & KNOWN
    return Roads(believed - right, right - believed)


@cache
def counted(family: str, name: str) -> tuple[int, int, int]:
    """Histories wrong, pages of them sent raw, pages through the firmware."""
    found = [finding(name, history) for history in generated(family)]
    return (
        sum(bool(it.pages) for it in found),
        sum(len(it.private_raw) for it in found),
        sum(len(it.shared_through_firmware) for it in found),
    )


# For v4, Hygon, v10 and kvmenc: histories wrong, pages sent raw, pages through the firmware.
COUNTS = {
    "Linux boots": [(0, 0, 0), (0, 0, 0), (50, 5, 52), (0, 0, 0)],
    "Linux boots, then another one": [(50, 745, 0), (0, 0, 0), (50, 1143, 56), (0, 0, 0)],
    "a driver shares what is shared": [(33, 242, 0), (29, 215, 0), (50, 297, 217), (0, 0, 0)],
    "anything, up to 40 announcements": [(20, 130, 0), (14, 70, 0), (41, 445, 79), (0, 0, 0)],
}


@pytest.mark.parametrize("family", FAMILIES)
def test_of_the_generated_histories_so_many_are_wrong(family: str) -> None:
    assert [counted(family, name) for name in CODES] == COUNTS[family]


SPACE = 150
announcements = st.builds(
    lambda start, npages, kind: Announcement(start, start + npages, kind),
    st.integers(0, SPACE),
    st.integers(1, 40),
    st.booleans(),
)
anything_said = st.lists(announcements, max_size=20)
realistic = st.builds(
    lambda family, random: family(random),
    st.sampled_from([boots, boots_again, shares_twice]),
    st.randoms(use_true_random=False),
)


@st.composite
def slots_with_holes(draw: st.DrawFn) -> tuple[MemSlot, ...]:
    """One after the other, with a hole between some, numbered as drawn."""
    slots, gfn = [], draw(st.integers(0, 3))
    for number in draw(st.permutations(range(draw(st.integers(1, 5))))):
        slots.append(MemSlot(number, gfn, draw(st.integers(1, 70)), 0))
        gfn = slots[-1].end_gfn + draw(st.sampled_from([0, 0, 1, 2, 64]))
    return tuple(sorted(slots, key=lambda slot: slot.slot_id))


def gfns_of(slots: tuple[MemSlot, ...]) -> set[int]:
    return {gfn for slot in slots for gfn in range(slot.base_gfn, slot.end_gfn)}


def check(tracker: MapGpaTracker, slots: tuple[MemSlot, ...], right: AbstractSet[int]) -> None:
    """What it tells of each slot and what it tells as a list are both the oracle's."""
    for slot, words in tracker.read(slots):
        bits = [gfn not in right for gfn in range(slot.base_gfn, slot.end_gfn)]
        assert bits_of(words, slot.npages) == bits
    told = ranges_of(tracker)
    assert gfns_in(told) == right & gfns_of(slots)
    assert all(start < end for start, end in told)
    assert all(end < start for (_, end), (start, _) in pairwise(told))


@given(slots_with_holes(), anything_said)
def test_after_every_announcement_kvmenc_is_right(
    slots: tuple[MemSlot, ...], history: History
) -> None:
    tracker, right = MapGpaTracker(slots), frozenset[int]()
    for said in history:
        announce(tracker, said)
        right = then(right, said)
        check(tracker, slots, right)


@settings(max_examples=40)
@given(realistic)
def test_after_a_guests_life_kvmenc_is_right(history: History) -> None:
    check(by_kvmenc(history, SLOTS), SLOTS, truth(history))


@given(slots_with_holes(), anything_said)
def test_the_list_made_into_a_state_is_the_state(
    slots: tuple[MemSlot, ...], history: History
) -> None:
    """What the target of a migration does with it."""
    tracker, target, state = by_kvmenc(history, slots), MapGpaTracker(slots), GfnState(slots)
    starts, ends = tracker.shared_ranges()
    target.apply_many(starts, ends, private=False)
    assert state.set_many(starts, ends, private=False) == int((ends - starts).sum())
    assert target.unkept_pages == 0
    assert ranges_of(state) == ranges_of(target) == ranges_of(tracker)
    for (slot, words), (_, arrived) in zip(tracker.read(slots), target.read(slots), strict=True):
        assert words.tolist() == arrived.tolist() == state.words_of(slot).tolist()


def test_a_list_goes_on_where_slots_meet_and_ends_at_a_hole() -> None:
    """Slots of another address space at the same gfns add nothing."""
    slots = [MemSlot(0, 10, 70, 0), MemSlot(1, 80, 5, 0), MemSlot(2, 90, 5, 0)]
    smm = [MemSlot(0, 10, 70, 0, as_id=1)]
    tracker = MapGpaTracker(slots + smm)
    announce(tracker, shared(0, 1000))
    assert ranges_of(tracker) == ((10, 85), (90, 95))
    announce(tracker, private(82, 93))
    assert ranges_of(tracker) == ((10, 82), (93, 95))


def test_without_slots_or_anything_shared_the_list_is_empty() -> None:
    for slots in ([], [MemSlot(0, 3, 65, 0), MemSlot(1, 90, 64, 0)]):
        starts, ends = GfnState(slots).shared_ranges()
        assert (starts.size, ends.size) == (0, 0)
        assert starts.dtype == ends.dtype == np.int64


@pytest.mark.usefixtures("fast_switching")
def test_a_list_sees_each_announcement_whole_or_not_at_all() -> None:
    """Every announcement covers both slots, with a vCPU thread at work while the list is made."""
    tracker = MapGpaTracker([MemSlot(0, 0, 100, 0), MemSlot(1, 200, 100, 0)])
    stop = threading.Event()

    def vcpu() -> None:
        while not stop.is_set():
            announce(tracker, shared(0, 300))
            announce(tracker, private(0, 300))

    thread = threading.Thread(target=vcpu)
    thread.start()
    try:
        seen = {ranges_of(tracker) for _ in range(300)}
    finally:
        stop.set()
        thread.join()
    assert seen == {(), ((0, 100), (200, 300))}


@given(st.sampled_from([V4, HYGON]), anything_said)
def test_qemus_list_never_forgets_what_is_shared(code: QemuList, history: History) -> None:
    """But for L1, all it does wrong is to send private pages raw: it never removes too much."""
    assert truth(history) <= gfns_in(after(code, history).ranges)


@given(anything_said)
def test_hygons_list_is_right_while_nothing_is_shared_twice(history: History) -> None:
    """It takes an announcement that shares a shared page to make nodes overlap."""
    code, right = HYGON, frozenset[int]()
    for said in history:
        if not said.private and not right.isdisjoint(range(said.start, said.end)):
            continue
        code, right = code.after(said), then(right, said)
        assert gfns_in(code.ranges) == right
        assert sum(end - start for start, end in code.ranges) == len(right)


def table(rows: list[list[str]]) -> str:
    head, *rest = ("| " + " | ".join(row) + " |" for row in rows)
    return "\n".join([head, "|---" * len(rows[0]) + "|", *rest])


def told(history: History | None) -> str:
    if history is None:
        return "-"
    return ", ".join(_told(said) for said in history)


def _told(said: Announcement) -> str:
    span = f"{said.start} to {said.end - 1}" if said.end - said.start > 1 else f"{said.start}"
    return f"{'private' if said.private else 'shared'} {span}"


def short_table() -> str:
    rows = [["histories", "code", "wrong", "private sent raw", "shared through firmware"]]
    searched = (("any ranges", all_short), ("single pages", all_of_single_pages))
    for what, found_by in searched:
        for name in CODES:
            found = found_by(name)
            numbers = (found.wrong, found.raw, found.firmware)
            rows.append([f"{found.histories:,}: {what}", name, *(f"{it:,}" for it in numbers)])
    return table(rows)


def shortest_table() -> str:
    rows = [["announcements", "code", "private sent raw", "shared through firmware"]]
    for what, found_by in (("any ranges", all_short), ("single pages", all_of_single_pages)):
        firsts = [(name, found_by(name)) for name in OTHERS]
        rows += [[what, name, told(it.first_raw), told(it.first_firmware)] for name, it in firsts]
    return table(rows)


def examples_table() -> str:
    rows = [["", "code", "the guest announces", "private sent raw", "shared through firmware"]]
    names = {code: name for name, code in OTHERS.items()}
    for defect, (code, history, wrong) in EXAMPLES.items():
        pages = [", ".join(map(str, sorted(it))) or "-" for it in wrong]
        rows.append([defect, names[code], told(history), *pages])
    return table(rows)


def generated_table() -> str:
    rows = [
        [f"{GENERATED} histories each", "code", "wrong", "pages sent raw", "pages through firmware"]
    ]
    for family in FAMILIES:
        numbers = [(name, counted(family, name)) for name in CODES]
        rows += [[family, name, *(f"{it:,}" for it in found)] for name, found in numbers]
    return table(rows)


@pytest.mark.parametrize(
    "made",
    [examples_table, short_table, shortest_table, generated_table],
    ids=lambda it: it.__name__,
)
def test_the_page_of_docs_shows_these_numbers(made: Callable[[], str]) -> None:
    assert f"\n{made()}\n" in PAGE_OF_DOCS.read_text()
