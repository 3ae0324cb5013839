"""What the types of a capture's fields alone do not rule out."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np

from kvmenc.capture.curve import curve_of
from kvmenc.capture.model import CurvePoint

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from kvmenc.capture.model import (
        BlockFacts,
        Capture,
        Costs,
        DeviceCurve,
        SlotFacts,
        SyncSample,
        Window,
        WindowPoint,
    )

__all__ = ["faults_of"]

Fault = tuple[str, str]


def faults_of(capture: Capture) -> Iterator[Fault]:
    """What is wrong, as (field, what was expected there); what comes first is worth reporting."""
    yield from _text_faults(capture)
    if capture.page_size.bit_count() != 1:
        yield "page_size", "a power of two"
    yield from _block_faults(capture.blocks)
    yield from _slot_faults(capture.slots, {it.name: it.npages for it in capture.blocks})
    yield from _curve_faults(capture.curve, capture.npages)
    yield from _windows_faults(capture)
    yield from _sample_faults(capture.samples, capture.npages)
    if capture.device:
        yield from _device_faults(capture.device, capture.blocks)
    if capture.costs:
        yield from _cost_faults(capture.costs)


def _text_faults(capture: Capture) -> Iterator[Fault]:
    """Text is shown in terminals: nothing in it may move the cursor."""
    texts = [(it, getattr(capture, it)) for it in ("source", "private_source", "private_reason")]
    texts += [(f"notes[{i}]", note) for i, note in enumerate(capture.notes)]
    texts += [(f"blocks[{i}].name", block.name) for i, block in enumerate(capture.blocks)]
    texts += [
        (f"provenance.{field}", getattr(capture.provenance, field) or "")
        for field in ("kvmenc_version", "kernel", "qemu", "machine", "vm_kind")
        if capture.provenance
    ]
    for field, text in texts:
        if not text.isprintable():
            yield field, "printable text"


def _block_faults(blocks: Sequence[BlockFacts]) -> Iterator[Fault]:
    names = set()
    for i, block in enumerate(blocks):
        if block.name in names:
            yield f"blocks[{i}].name", "a name of its own"
        if block.private_pages + (block.zero_pages or 0) > block.npages:
            yield f"blocks[{i}]", f"private and zero pages within {block.npages}"
        if block.unlogged_pages > block.npages:
            yield f"blocks[{i}].unlogged_pages", f"at most {block.npages}"
        yield from _zero_bound_faults(f"blocks[{i}]", block)
        yield from _segment_faults(f"blocks[{i}].segments", block)
        names.add(block.name)


def _zero_bound_faults(where: str, block: BlockFacts) -> Iterator[Fault]:
    low, high = block.zero_low_pages, block.zero_high_pages
    if low is None and high is None:
        return
    if low is None or high is None or block.zero_pages is None:
        yield where, "bounds of zero pages both or neither, and never without zero_pages"
    elif not low <= block.zero_pages <= high:
        yield where, "zero_low_pages <= zero_pages <= zero_high_pages"
    elif high + block.private_pages > block.npages:
        yield f"{where}.zero_high_pages", f"at most {block.npages - block.private_pages}"


def _segment_faults(where: str, block: BlockFacts) -> Iterator[Fault]:
    """Zero pages may have been estimated for the block as a whole, and so differ."""
    if not block.segments:
        return
    for i, it in enumerate(block.segments):
        if it.private_pages + it.zero_pages > it.npages:
            yield f"{where}[{i}]", f"private and zero pages within {it.npages}"
        shared = it.npages - it.private_pages
        if it.dirty_private_pages > it.private_pages or it.dirty_shared_pages > shared:
            yield f"{where}[{i}]", "no more dirty pages than there are pages"
    for field in ("npages", "private_pages"):
        if sum(getattr(it, field) for it in block.segments) != getattr(block, field):
            yield where, f"{field} that add up to the block's {getattr(block, field)}"


def _slot_faults(slots: Sequence[SlotFacts], sizes: dict[str, int]) -> Iterator[Fault]:
    for i, slot in enumerate(slots):
        if slot.block not in sizes:
            yield f"slots[{i}].block", "the name of a block"
        elif slot.block_page + slot.npages > sizes[slot.block]:
            yield f"slots[{i}]", f"pages within the {sizes[slot.block]} of its block"


def _curve_faults(curve: Sequence[CurvePoint], npages: int) -> Iterator[Fault]:
    yield from _ms_faults("curve", [point.ms for point in curve])
    for i, (left, right) in enumerate(itertools.pairwise((CurvePoint(0, 0, 0), *curve))):
        for field in ("private_pages", "shared_pages"):
            if getattr(right, field) < getattr(left, field):
                yield f"curve[{i}].{field}", f"at least {getattr(left, field)}"
            if getattr(right, field) > npages:  # not their sum: a page that flipped counts twice
                yield f"curve[{i}].{field}", f"at most {npages}"


def _ms_faults(where: str, times_ms: Iterable[float]) -> Iterator[Fault]:
    last_ms = 0.0
    for i, ms in enumerate(times_ms):
        if ms <= last_ms:
            yield f"{where}[{i}].ms", f"more than {last_ms:g}"
        last_ms = ms


def _windows_faults(capture: Capture) -> Iterator[Fault]:
    if not capture.windows:
        return
    limits, start_ms, sound = [block.npages for block in capture.blocks], -1.0, True
    for i, window in enumerate(capture.windows):
        if window.start_ms <= start_ms:
            yield f"windows[{i}].start_ms", f"more than {start_ms:g}"
        start_ms = window.start_ms
        for fault in _window_faults(f"windows[{i}].points", window, limits):
            sound = False
            yield fault
    if sound:
        yield from _derived_faults(capture.curve, curve_of(capture.windows))


def _window_faults(where: str, window: Window, limits: Sequence[int]) -> Iterator[Fault]:
    """A page has one class at each look, so the sum of both is what cannot fall or exceed."""
    yield from _ms_faults(where, [point.ms for point in window.points])
    if fault := _ragged(where, window.points, len(limits)):
        yield fault
        return
    pages = _by_block(window.points, "private_pages") + _by_block(window.points, "shared_pages")
    if fell := _first(np.diff(pages, axis=0) < 0):
        yield f"{where}[{fell[0] + 1}]", f"no fewer pages of block {fell[1]} than before"
    if over := _first(pages > np.array(limits, np.int64)):
        yield f"{where}[{over[0]}]", f"at most {limits[over[1]]} pages of block {over[1]}"


def _ragged(where: str, points: Sequence[WindowPoint], nblocks: int) -> Fault | None:
    for i, point in enumerate(points):
        for field in ("private_pages", "shared_pages"):
            if len(getattr(point, field)) != nblocks:
                return f"{where}[{i}].{field}", f"{nblocks} numbers, one for each block"
    return None


def _by_block(points: Sequence[WindowPoint], field: str) -> NDArray[np.int64]:
    """Shape (points, blocks)."""
    return np.array([getattr(point, field) for point in points], np.int64)


def _first(wrong: NDArray[np.bool_]) -> tuple[int, int] | None:
    """Point and block of the first entry that is true."""
    found = np.argwhere(wrong)
    return (int(found[0, 0]), int(found[0, 1])) if found.size else None


def _derived_faults(curve: Sequence[CurvePoint], derived: Sequence[CurvePoint]) -> Iterator[Fault]:
    """Two machines may round a mean differently: one page off is no fault."""
    if len(curve) != len(derived):
        yield "curve", f"the {len(derived)} points that its windows make"
    for i, (got, made) in enumerate(zip(curve, derived, strict=False)):
        off = (got.private_pages - made.private_pages, got.shared_pages - made.shared_pages)
        if (got.ms, got.error_ms) != (made.ms, made.error_ms) or max(map(abs, off)) > 1:
            yield f"curve[{i}]", f"what its windows make: {made}"


def _sample_faults(samples: Sequence[SyncSample], npages: int) -> Iterator[Fault]:
    t_ms = 0.0
    for i, sample in enumerate(samples):
        if sample.t_ms < t_ms:
            yield f"samples[{i}].t_ms", f"at least {t_ms:g}"
        if sample.dirty_private_pages + sample.dirty_shared_pages > npages:
            yield f"samples[{i}]", f"at most {npages} dirty pages"
        if sample.flipped_pages > npages:
            yield f"samples[{i}].flipped_pages", f"at most {npages}"
        t_ms = sample.t_ms


def _device_faults(device: DeviceCurve, blocks: Sequence[BlockFacts]) -> Iterator[Fault]:
    npages = sum(block.npages for block in blocks)
    if not device.sampled_pages <= device.population_pages <= npages:
        yield "device", f"sampled_pages <= population_pages <= {npages}"
    yield from _ms_faults("device.points", [point.ms for point in device.points])
    for i, point in enumerate(device.points):
        where = f"device.points[{i}]"
        if len(point.pages) != len(blocks):
            yield f"{where}.pages", f"{len(blocks)} numbers, one for each block"
        elif any(pages > it.npages for pages, it in zip(point.pages, blocks, strict=True)):
            yield f"{where}.pages", "no more pages than each block has"
        elif not point.low_pages <= sum(point.pages) <= point.high_pages <= npages:
            yield where, f"low_pages <= sum of pages <= high_pages <= {npages}"


def _cost_faults(costs: Costs) -> Iterator[Fault]:
    stops = (costs.stop_median_us, costs.stop_p99_us, costs.stop_max_us)
    known = [us for us in stops if us is not None]
    if known != sorted(known):
        yield "costs", "stop_median_us <= stop_p99_us <= stop_max_us"
