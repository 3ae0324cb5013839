"""From what was found to a capture and its bitmaps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np

from kvmenc.capture import (
    BlockFacts,
    Capture,
    Costs,
    curve_of,
    provenance_now,
    segment_facts,
    slot_facts,
)
from kvmenc.contents import count_zero_pages
from kvmenc.errors import HostError
from kvmenc.memory import words as kernels
from kvmenc.watch.wishes import Watched

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kvmenc.capture import BitmapKind, How, Provenance
    from kvmenc.contents import Contents, ZeroCount
    from kvmenc.encstate.choose import Choice
    from kvmenc.memory.maps import PrivateMap
    from kvmenc.memory.slots import RamBlock
    from kvmenc.memory.words import Words
    from kvmenc.qemu.facts import Facts
    from kvmenc.watch.findings import Findings

__all__ = ["assemble", "provenance_of"]

# Read to count zero pages, of each RAMBlock: 1 GiB, about half a second.
ZERO_PAGES = 262_144

_GIB = 2**30


def assemble(
    findings: Findings,
    facts: Facts,
    choice: Choice,
    contents: Contents | None,
    stop_us: Sequence[float],
    notes: Sequence[str],
) -> Watched:
    """Put the capture together; zero pages are counted now.

    Raises:
        HostError: there is not one point of a curve.
    """
    if not findings.windows:
        raise HostError(_no_point(findings)) from findings.trouble
    zeros = _zeros(findings, contents)
    bitmaps = _bitmaps(findings, zeros)
    blocks = [
        _block(findings, block, zeros.get(block.name), bitmaps.get(("zero", block.name)))
        for block in findings.layout.blocks
    ]
    capture = Capture(
        source=f"QEMU {facts.release}, process {facts.pid}",
        private_source=choice.source.name,
        private_reason=choice.reason,
        page_size=findings.layout.page_size,
        blocks=tuple(blocks),
        curve=curve_of(findings.windows),
        slots=slot_facts(findings.layout),
        windows=tuple(findings.windows),
        device=findings.device,
        costs=_costs(findings, stop_us),
        provenance=provenance_of(facts, "peek"),
        notes=tuple(notes),
    )
    return Watched(capture, bitmaps, findings.trouble)


def provenance_of(facts: Facts, how: How) -> Provenance:
    """Where, when and how, as of now."""
    return provenance_now(how, qemu=facts.release, machine=facts.machine, vm_kind=facts.kind)


def _no_point(findings: Findings) -> str:
    why = {
        "time": "the time was over",
        "another-reader": "another reader cleared dirty bits at once: is a migration starting?",
        "log-stopped": "QEMU switched its dirty log off",
        "layout-changed": "the guest changed its memory layout: is it booting? Try again",
        "vm-gone": str(findings.trouble),
        "interrupted": "it was interrupted",
    }
    return f"nothing was captured: {why[findings.ended_by]}"


def _zeros(findings: Findings, contents: Contents | None) -> dict[str, ZeroCount]:
    if contents is None or findings.ended_by == "vm-gone":
        return {}
    rng = np.random.default_rng()
    blocks = contents.layout.blocks
    return {block.name: count_zero_pages(contents, block, ZERO_PAGES, rng) for block in blocks}


def _block(
    findings: Findings, block: RamBlock, zero: ZeroCount | None, shared_zeros: Words | None
) -> BlockFacts:
    private = findings.private[block.name]
    shared_pages = block.npages - private.pages
    facts = BlockFacts(
        name=block.name,
        npages=block.npages,
        private_pages=private.pages,
        zero_pages=None,
        unlogged_pages=findings.layout.unlogged_pages(block),
        segments=segment_facts(
            block.npages, findings.dirty[block.name].words, private.words, shared_zeros
        ),
    )
    if zero is None:
        return facts
    if shared_zeros is not None:
        counted = kernels.count(shared_zeros, block.npages)
        return msgspec.structs.replace(facts, zero_pages=counted)
    return msgspec.structs.replace(
        facts,
        zero_pages=min(zero.pages, shared_pages),
        zero_low_pages=min(zero.low_pages, shared_pages),
        zero_high_pages=min(zero.high_pages, shared_pages),
    )


def _shared_zeros(zero: Words, private: PrivateMap) -> Words:
    """A page that was never touched is private by default, and zero: it is not sent as zero."""
    return zero & ~private.words


def _bitmaps(
    findings: Findings, zeros: dict[str, ZeroCount]
) -> dict[tuple[BitmapKind, str], Words]:
    bitmaps: dict[tuple[BitmapKind, str], Words] = {}
    for name, dirty in findings.dirty.items():
        bitmaps["dirty", name] = dirty.words
        bitmaps["private", name] = findings.private[name].words
    for name, zero in zeros.items():
        if zero.words is not None:
            bitmaps["zero", name] = _shared_zeros(zero.words, findings.private[name])
    return bitmaps


def _costs(findings: Findings, stop_us: Sequence[float]) -> Costs:
    start_ms = max(findings.log_start_ms, default=None)
    gib = sum(slot.npages for slot in findings.layout.slots) * findings.layout.page_size / _GIB
    if not stop_us:
        return Costs(log_start_ms=start_ms, log_start_ms_per_gib=start_ms and start_ms / gib)
    median, p99 = np.percentile(stop_us, [50, 99]).tolist()
    return Costs(
        log_start_ms=start_ms,
        log_start_ms_per_gib=start_ms and start_ms / gib,
        stop_count=len(stop_us),
        stop_median_us=median,
        stop_p99_us=p99,
        stop_max_us=max(stop_us),
    )
