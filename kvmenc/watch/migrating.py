"""Looking while a migration reads the same dirty log: looks only, and only if they are safe.

Nothing is started, so QEMU does not tell the slots' numbers: they must come from its own log. And
looking takes nothing only under manual protect, which KVM does not tell. It is shown by a ROM slot:
no guest writes there, so a dirty bit in it was set when the log began, which KVM does under manual
protect only; and a look at that slot harms nobody even without, for the migration sends each page
of it once, and none of them changes. Else it is shown by QEMU's clearing the log for itself, which
it does under manual protect only.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from kvmenc.backend.tracee import TraceeBackend
from kvmenc.dirtysource import PeekSource
from kvmenc.encstate.choose import AtHand
from kvmenc.errors import HostError
from kvmenc.qemu.enclog import read_enc_log
from kvmenc.qemu.live import read_layout
from kvmenc.qemu.slotids import SlotTrace, with_numbers
from kvmenc.qemu.text import read_text
from kvmenc.qemu.trace import parse_trace
from kvmenc.watch.assemble import assemble
from kvmenc.watch.findings import Findings
from kvmenc.watch.guard import Guard
from kvmenc.watch.looking import Looking
from kvmenc.watch.notes import notes_of
from kvmenc.watch.peeks import Peeks
from kvmenc.watch.private import private_source, with_state
from kvmenc.watch.start import Start, shows_rom_dirty

if TYPE_CHECKING:
    from kvmenc.memory.layout import Layout
    from kvmenc.qemu.facts import Facts
    from kvmenc.qemu.monitor import Monitor
    from kvmenc.tracee import Injector
    from kvmenc.watch.wishes import OnPoint, Watched, Wishes

__all__ = ["watch_migrating"]

_PATIENCE_S = 3.0
_DURING = (
    "captured while a migration was going on: pages that were dirty when looking began and were "
    "written again are not in the curve"
)


def watch_migrating(
    monitor: Monitor, facts: Facts, wishes: Wishes, injector: Injector, on_point: OnPoint
) -> Watched:
    """Look until the migration clears a bit, or the time is over.

    Raises:
        HostError: the slots' numbers are not known, or looking cannot be shown to be safe.
    """
    if wishes.trace is None:
        raise HostError(
            "while a migration is going on, QEMU does not tell the slots' numbers: give a log of "
            "kvm_set_user_memory since QEMU's start with --trace FILE"
        )
    opened_s = time.monotonic()
    guard = Guard(monitor)
    layout = with_numbers(read_layout(monitor).layout, parse_trace(read_text(wishes.trace)))
    vm_fd = injector.target.vm_fd
    source = PeekSource(TraceeBackend(injector, layout.slots), vm_fd)
    _check_is_safe(monitor, facts, source, layout)
    announced = read_enc_log(wishes.enc_log, layout.slots) if wishes.enc_log else None
    at_hand = AtHand(kind=facts.kind, hypercalls=announced.tracker if announced else None)
    choice = private_source(at_hand, layout, wishes.private)
    layout = with_state(layout, choice)
    peeks = Peeks(source, layout.logged_slots)
    looking = Looking(
        layout,
        choice.source,
        peeks,
        _start_now(peeks),
        guard.change,
        None,
    )
    looking.run(wishes.seconds, on_point)
    findings = Findings(layout, opened_s)
    findings.add(looking)
    notes = [*(announced.warnings if announced else ()), *notes_of(findings, facts), _DURING]
    return assemble(findings, facts, choice, None, injector.stop_us, notes)


def _check_is_safe(monitor: Monitor, facts: Facts, source: PeekSource, layout: Layout) -> None:
    """See whether looking at all is safe: in the ROM alone, or in what QEMU does."""
    rom = [slot for slot in layout.logged_slots if slot.readonly]
    if rom and shows_rom_dirty(Peeks(source, rom).take()):
        return
    with SlotTrace(monitor, facts) as trace:
        if trace.shows_manual_protect(_PATIENCE_S):
            return
    raise HostError(
        "looking cannot be shown to be safe now: no ROM is dirty any more, and QEMU has cleared "
        f"nothing of its dirty log for {_PATIENCE_S:g} s, so that nothing shows that looks take "
        "nothing; try again"
    )


def _start_now(peeks: Peeks) -> Start:
    first = peeks.take().kept()
    peeks.cleared_since_last(first)
    at_s, half_s = (first.before_s + first.after_s) / 2, (first.after_s - first.before_s) / 2
    return Start(at_s, half_s, took_s=0.0, first=first, clean=False)
