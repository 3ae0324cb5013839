"""A capture of a busy guest of 1 TiB, as large as a real one would be."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kvmenc.capture import (
    BlockFacts,
    Capture,
    DeviceCurve,
    DevicePoint,
    SlotFacts,
    Window,
    WindowPoint,
    curve_of,
    provenance_now,
)
from kvmenc.memory.words import count, from_pages, ones, set_ranges, zeros

if TYPE_CHECKING:
    from kvmenc.capture import Bitmaps
    from kvmenc.memory.words import Words

TIB_PAGES = 1 << 28
#: RAMBlocks beside the RAM, as QEMU has them for video memory, ROMs and tables.
SMALL = {"vga.vram": 4096, "pc.bios": 64, "pc.rom": 32, "/rom@etc/acpi/tables": 512}


def big_capture(npoints: int) -> tuple[Capture, Bitmaps]:
    """Two windows of ``npoints`` looks each, device writes, and bitmaps of all RAMBlocks.

    Written pages are thousands of arenas, hundreds of thousands of short runs, and millions of
    single pages; shared ones a bounce buffer and short runs.
    """
    rng = np.random.default_rng(2019)
    dirty = _runs(rng, 20_000, 256) | _runs(rng, 400_000, 8)
    dirty |= from_pages(rng.integers(0, TIB_PAGES, 2_000_000), TIB_PAGES)
    shared = _runs(rng, 3_000, 64)
    set_ranges(shared, np.array([2**20]), np.array([2**20 + 2**18]))
    private = ones(TIB_PAGES) & ~shared
    zero = _runs(rng, 20_000, 500) & shared
    bitmaps = {("dirty", "pc.ram"): dirty, ("private", "pc.ram"): private, ("zero", "pc.ram"): zero}
    blocks = [BlockFacts("pc.ram", TIB_PAGES, _count(private), _count(zero), 96)]
    for name, npages in SMALL.items():
        blocks.append(BlockFacts(name, npages, 0, npages, npages))
        bitmaps |= {("dirty", name): zeros(npages), ("private", name): zeros(npages)}
    return _capture(tuple(blocks), _count(dirty), npoints), bitmaps  # type: ignore[return-value]


def _runs(rng: np.random.Generator, number: int, mean_pages: int) -> Words:
    starts = rng.integers(0, TIB_PAGES - 1, number)
    lengths = np.ceil(rng.exponential(mean_pages, number)).astype(np.int64)
    words = zeros(TIB_PAGES)
    set_ranges(words, starts, np.minimum(starts + lengths, TIB_PAGES))
    return words


def _count(words: Words) -> int:
    return count(words, TIB_PAGES)


def _capture(blocks: tuple[BlockFacts, ...], dirty_pages: int, npoints: int) -> Capture:
    windows = (_window(0.0, dirty_pages, npoints), _window(7e4, dirty_pages, npoints))
    none = (0,) * len(SMALL)
    device = DeviceCurve(
        tuple(DevicePoint(1e3 * (i + 1), (900 * i, *none), 800 * i, 950 * i) for i in range(8)),
        confidence=0.95,
        sampled_pages=200_000,
        population_pages=TIB_PAGES,
    )
    slots = tuple(
        SlotFacts(0, i, 2**20 * i, 64, "pc.ram", 64 * i, readonly=False, log_dirty=True)
        for i in range(64)
    )
    return Capture(
        source="QEMU 7.2.9, process 4711",
        private_source="all private",
        blocks=blocks,
        curve=curve_of(windows),
        slots=slots,
        windows=windows,
        device=device,
        provenance=provenance_now("peek", qemu="7.2.9", machine="pc-q35-7.2", vm_kind="sev"),
    )


def _window(start_ms: float, dirty_pages: int, npoints: int) -> Window:
    none = (0,) * len(SMALL)
    points = []
    for i in range(1, npoints + 1):
        ms = 25 + 11.9 * i + start_ms / 1e7
        pages = int(dirty_pages * (i / npoints) ** 0.5)
        counts = ((pages - pages // 9, *none), (pages // 9, *none))
        points.append(WindowPoint(ms, 0.123456789, *counts))
    return Window(start_ms, 1.25, "time", tuple(points))
