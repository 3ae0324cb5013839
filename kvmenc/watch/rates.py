"""Without the right to look: QEMU's calc-dirty-rate again and again, one number at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvmenc.capture import BlockFacts, Capture, CurvePoint, slot_facts
from kvmenc.encstate.choose import AtHand, Choice, choose
from kvmenc.encstate.simulated import ALL_PRIVATE
from kvmenc.qemu.dirtyrate import rate_samples
from kvmenc.qemu.live import read_layout
from kvmenc.watch.assemble import provenance_of
from kvmenc.watch.wishes import Watched

if TYPE_CHECKING:
    from kvmenc.memory.layout import Layout
    from kvmenc.qemu.facts import Facts
    from kvmenc.qemu.monitor import Monitor
    from kvmenc.watch.wishes import OnPoint, Wishes

__all__ = ["watch_by_rates"]

_LOST = (
    "one number for all RAMBlocks and classes together; no bitmaps; every point is of a stretch of "
    "its own, and only as fine as whole MiB/s; zero pages and device writes were not looked for"
)


def watch_by_rates(
    monitor: Monitor, facts: Facts, wishes: Wishes, on_point: OnPoint, why: str
) -> Watched:
    """Watch a QEMU by QMP alone.

    Args:
        monitor: how to speak to it.
        facts: what it said of itself.
        wishes: what the user wants.
        on_point: told of every point.
        why: the reason for which its dirty log cannot be looked at, in a line.

    Raises:
        HostError: QEMU does not play along.
        NotSupported: private/shared was to come from something that cannot be had this way.
    """
    qemu = read_layout(monitor)
    choice = _constant(facts, wishes)
    private = choice.source.name == ALL_PRIVATE
    curve: list[CurvePoint] = []
    for sample in rate_samples(monitor, wishes.seconds):
        last = curve[-1].private_pages + curve[-1].shared_pages if curve else 0
        pages = max(round(sample.pages), last)
        counts = (pages, 0) if private else (0, pages)
        curve.append(CurvePoint(sample.ms, *counts))
        on_point(sample.since_s, pages)
    return Watched(_capture(facts, qemu.layout, choice, curve, why), {})


def _constant(facts: Facts, wishes: Wishes) -> Choice:
    choice = choose(AtHand(kind=facts.kind), wishes.private)
    assert isinstance(choice, Choice)  # only guest_memfd has no constant, and it was refused
    return choice


def _capture(
    facts: Facts, layout: Layout, choice: Choice, curve: list[CurvePoint], why: str
) -> Capture:
    private = choice.source.name == ALL_PRIVATE
    blocks = [
        BlockFacts(
            name=block.name,
            npages=block.npages,
            private_pages=block.npages if private and block.override != "shared" else 0,
            zero_pages=None,
            unlogged_pages=0,
        )
        for block in layout.blocks
    ]
    return Capture(
        source=f"QEMU {facts.release}, process {facts.pid}, by QMP alone",
        private_source=choice.source.name,
        private_reason=choice.reason,
        page_size=layout.page_size,
        blocks=tuple(blocks),
        curve=tuple(curve),
        slots=slot_facts(layout, ids_known=False),
        provenance=provenance_of(facts, "calc-dirty-rate"),
        notes=(f"QEMU's dirty log was not looked at: {why}", f"so this is lost: {_LOST}"),
    )
