from __future__ import annotations

import pytest
from msgspec.structs import replace

from kvmenc.capture import BlockFacts, SlotFacts
from kvmenc.plan.overheads import Overheads
from tests.plan.guests import GIB_PAGES, capture_of, guest
from tests.plan.test_precopy import IDLE


def sync_ms(*sizes: int) -> float:
    blocks = [BlockFacts(f"ram{i}", npages, 0, None, 0) for i, npages in enumerate(sizes)]
    return Overheads.of(capture_of(blocks, IDLE)).sync_ms


def test_a_sync_grows_with_memory() -> None:
    assert sync_ms(256 * GIB_PAGES) == pytest.approx(7.5, rel=0.1)
    assert sync_ms(2 * GIB_PAGES) < 0.2


def test_each_page_of_a_block_of_an_odd_size_costs_an_ioctl() -> None:
    """QEMU 7.2 took 97 to 128 ms for such a guest, and less than 0.1 for one of 256 MiB."""
    even, odd = sync_ms(GIB_PAGES // 4), sync_ms(GIB_PAGES // 4 + 2)
    assert odd - even == pytest.approx(GIB_PAGES / 4 * 1.5e-3, rel=0.01)


def test_a_slot_that_begins_within_a_word_costs_a_little_more() -> None:
    capture = guest(GIB_PAGES, 0, IDLE)
    slots = [
        SlotFacts(0, 0, 256, GIB_PAGES - start, "pc.ram", start, False, True) for start in (64, 224)
    ]
    straight, crooked = (Overheads.of(replace(capture, slots=(it,))).sync_ms for it in slots)
    assert 0 < crooked - straight < 5
