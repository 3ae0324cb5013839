"""Device writes: pages whose contents change while the dirty log says nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmenc.contents import Contents, DeviceWrites
from kvmenc.contents.devices import _nth_pages
from kvmenc.contents.reader import Contents as Reader
from kvmenc.memory.layout import Layout
from kvmenc.memory.maps import DirtyMap
from kvmenc.memory.slots import MemSlot, RamBlock
from kvmenc.memory.words import from_pages
from tests.contents.target import PAGE, target

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from kvmenc.contents.where import Rows
    from kvmenc.memory.words import Pages
    from tests.contents.target import Target

NPAGES = 600


def dirty(npages: int, *pages: int) -> DirtyMap:
    found = DirtyMap(npages)
    found.words |= from_pages(np.array(pages, np.int64), npages)
    return found


@pytest.fixture(params=["anonymous", "memfd shared"])
def guest(request: pytest.FixtureRequest) -> Iterator[Target]:
    with target(request.param, NPAGES) as it:
        it.write(dict.fromkeys(range(0, 300, 3), 7))
        yield it


def test_exactly_the_pages_changed_with_a_clear_bit_are_found(guest: Target) -> None:
    before = guest.footprint()
    with Contents(guest.pid, guest.layout) as contents:
        device = DeviceWrites(contents, guest.layout.blocks, NPAGES, np.random.default_rng(1))
        device.baseline()
        assert guest.footprint() == before
        by_device, by_vcpu, by_both, with_the_same = {3: 8, 301: 9}, {6: 8, 304: 9}, {9: 9}, {12: 7}
        guest.write(by_device | by_vcpu | by_both | with_the_same | {305: 0})
        before = guest.footprint()
        look = device.look()
        found = device.written(look, {"pc.ram": dirty(NPAGES, *by_vcpu, *by_both, 30)})
        assert guest.footprint() == before
    total = found.total
    assert (total.low_pages, total.pages, total.high_pages) == (2, 2, 2)
    assert found.blocks == {"pc.ram": total}
    assert (found.sampled_pages, found.population_pages) == (NPAGES, NPAGES)


def test_each_look_is_compared_with_the_baseline(guest: Target) -> None:
    clean = {"pc.ram": dirty(NPAGES)}
    with Contents(guest.pid, guest.layout) as contents:
        device = DeviceWrites(contents, guest.layout.blocks, NPAGES, np.random.default_rng(1))
        device.baseline()
        found = [device.written(device.look(), clean).total.pages]
        for page in (1, 2, 3):
            guest.write({page: 99})
            found.append(device.written(device.look(), clean).total.pages)
        device.baseline()
        found.append(device.written(device.look(), clean).total.pages)
    assert found == [0, 1, 2, 3, 0]


def test_pages_in_no_logged_slot_are_not_drawn_from() -> None:
    """Also those that two slots show are drawn once."""
    with target("anonymous", 100) as it:
        addr = it.block.host_addr
        blocks = [RamBlock("a", 60, addr), RamBlock("b", 40, addr + 60 * PAGE)]
        slots = [
            MemSlot(0, 0, 20, addr + 10 * PAGE),
            MemSlot(0, 0, 10, addr + 25 * PAGE, as_id=1),
            MemSlot(1, 100, 10, addr + 35 * PAGE, log_dirty=False),
            MemSlot(2, 200, 20, addr + 50 * PAGE),
        ]
        with Contents(it.pid, Layout(slots, blocks, PAGE)) as contents:
            device = DeviceWrites(contents, blocks, 1000, np.random.default_rng(1))
            device.baseline()
            it.write(dict.fromkeys(range(100), 1))
            found = device.written(device.look(), {"a": dirty(60), "b": dirty(40)})
    assert {name: one.pages for name, one in found.blocks.items()} == {"a": 35, "b": 10}
    assert found.population_pages == 45


@pytest.mark.usefixtures("swap")
def test_a_page_that_was_swapped_out_meanwhile_is_in_doubt() -> None:
    with target("anonymous", 64) as it, Contents(it.pid, it.layout) as contents:
        it.write(dict.fromkeys(range(10), 5))
        device = DeviceWrites(contents, it.layout.blocks, 64, np.random.default_rng(1))
        device.baseline()
        it.page_out()
        clean = {"pc.ram": dirty(64)}
        doubtful = device.written(device.look(), clean).total
        device.baseline()
        unchanged = device.written(device.look(), clean).total
    assert (doubtful.low_pages, doubtful.pages, doubtful.high_pages) == (0, 0, 10)
    assert unchanged.high_pages == 0


class MadeUp(Reader):
    """Contents without a process: a byte for each page."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.values = {block: np.zeros(block.npages, np.uint8) for block in layout.blocks}

    def read(
        self, block: RamBlock, pages: Pages, into: Rows | None = None
    ) -> tuple[Rows, NDArray[np.bool_]]:
        rows = np.empty((pages.size, 4096), np.uint8) if into is None else into
        rows[:] = self.values[block][pages, np.newaxis]
        return rows, np.ones(pages.size, np.bool_)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3])
def test_the_bounds_hold_nineteen_times_in_twenty(share: float) -> None:
    """For each block and for their sum, whatever devices and vCPUs wrote."""
    rng = np.random.default_rng(4)
    blocks = [RamBlock("a", 3000, 0), RamBlock("b", 500, 3000 * 4096)]
    contents = MadeUp(Layout([MemSlot(0, 0, 3500, 0)], blocks))
    held, runs = {"a": 0, "b": 0, "all": 0}, 200
    for _ in range(runs):
        device = DeviceWrites(contents, blocks, 150, rng)
        device.baseline()
        maps, truth = {}, {}
        for block in blocks:
            changed = rng.random(block.npages) < share
            contents.values[block] += changed.astype(np.uint8)
            by_vcpu = np.flatnonzero(rng.random(block.npages) < 0.2)
            maps[block.name] = dirty(block.npages, *by_vcpu.tolist())
            changed[by_vcpu] = False
            truth[block.name] = int(changed.sum())
        found = device.written(device.look(), maps)
        for name, one in [*found.blocks.items(), ("all", found.total)]:
            true = truth.get(name, sum(truth.values()))
            held[name] += one.low_pages <= true <= one.high_pages
    assert min(held.values()) >= 0.95 * runs


def test_every_page_is_as_likely_to_be_drawn() -> None:
    blocks = [RamBlock("a", 30, 0), RamBlock("b", 10, 30 * 4096)]
    contents = MadeUp(Layout([MemSlot(0, 0, 40, 0)], blocks))
    hits = np.zeros(40)
    for seed in range(1000):
        samples = DeviceWrites(contents, blocks, 4, np.random.default_rng(seed))._samples
        for first, sample in zip((0, 30), samples, strict=True):
            hits[first + sample.pages] += 1
    assert np.all(np.abs(hits / 1000 - 0.1) < 4.5 * (0.1 * 0.9 / 1000) ** 0.5)


def test_a_guest_without_a_dirty_log_has_nothing_to_draw_from() -> None:
    block = RamBlock("a", 30, 0)
    device = DeviceWrites(MadeUp(Layout([], [block])), [block], 10, np.random.default_rng(1))
    device.baseline()
    found = device.written(device.look(), {"a": dirty(30)})
    assert (found.population_pages, found.total.high_pages) == (0, 0)


@given(st.sets(st.integers(0, 299), min_size=1), st.data())
def test_numbered_pages_are_found_among_the_set_bits(pages: set[int], data: st.DataObject) -> None:
    numbers = sorted(data.draw(st.sets(st.integers(0, len(pages) - 1))))
    ordered = sorted(pages)
    words = from_pages(np.array(ordered, np.int64), 300)
    found = _nth_pages(words, 300, np.array(numbers, np.int64))
    assert found.tolist() == [ordered[number] for number in numbers]
