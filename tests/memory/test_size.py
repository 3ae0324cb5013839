"""A guest of 128 GiB: several chunks of the real size, and memory that does not grow with it."""

from __future__ import annotations

import tracemalloc

from tests.memory.big import BigGuest

NPAGES = 1 << 25


def test_a_sync_over_many_chunks_agrees_with_one_over_booleans() -> None:
    BigGuest(NPAGES, dirty_share=0.5, private_share=0.7).check_a_sync()


def test_a_sync_allocates_a_few_chunks_whatever_the_guest() -> None:
    guest = BigGuest(NPAGES, dirty_share=0.5, private_share=0.7)
    tracemalloc.start()
    try:
        guest.flip_and_sync()
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak_bytes < 3 * (1 << 20)
