"""What a reader of a capture should know about how it came to be, a line each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvmenc import units

if TYPE_CHECKING:
    from kvmenc.qemu.facts import Facts
    from kvmenc.watch.findings import Findings

__all__ = ["notes_of"]

# Later than any look is held up by what goes on at the same time in a capture.
_LATE_S = 0.5

_ENDS = {
    "another-reader": (
        "another reader began to clear dirty bits, as a migration does: the curve ends there"
    ),
    "log-stopped": "QEMU switched its dirty log off before the time was over",
    "layout-changed": (
        "the guest's memory layout changed: the curve ends at the last look known to be before it"
    ),
    "vm-gone": "QEMU went away: the curve ends there",
    "interrupted": "interrupted: the curve ends there",
}


def notes_of(findings: Findings, facts: Facts) -> list[str]:
    """The notes on a capture made by looks at the dirty log."""
    early = findings.ended_by == "log-stopped" and findings.windows[1:]
    notes = [_ENDS[findings.ended_by]] if findings.ended_by in _ENDS and not early else []
    if len(findings.windows) > 1:
        notes.append(
            f"{len(findings.windows)} windows, each from a t = 0 of its own: they show how much "
            "the guest's writes differ from one moment to another"
        )
    if facts.vm_status != "running":
        notes.append(f"the guest was not running ({facts.vm_status}): an idle curve says nothing")
    if findings.late_s > _LATE_S:
        notes.append(
            f"a look came {units.format_time(findings.late_s * 1e3)} late: the host was busy, and "
            "the guest may have run slower than it does else"
        )
    notes += [
        f"{slot} at gfn {slot.base_gfn:#x} was not looked at: QEMU logs it for its display"
        for slot in findings.layout.slots
        if not slot.log_dirty
    ]
    return notes
