"""A migration rehearsed: pages really moved from one encrypted VM to another, and compared.

:func:`rehearse` takes a guest (:mod:`~kvmenc.rehearsal.ends`), syncs its bitmaps by the very code
that is checked elsewhere, sends its pages by the rules that plans are made by
(:mod:`~kvmenc.rehearsal.ram`), private ones through the firmware of both ends, over a line that
keeps order (:mod:`~kvmenc.rehearsal.records`); and says what became of it
(:mod:`~kvmenc.rehearsal.result`).
"""

from kvmenc.rehearsal.apart import far_target
from kvmenc.rehearsal.builtin import BuiltIn
from kvmenc.rehearsal.ends import Source, fake_source, local_source, near_target
from kvmenc.rehearsal.faults import Fault, FaultKind, parse_fault
from kvmenc.rehearsal.records import RecordRefused
from kvmenc.rehearsal.result import DryRun
from kvmenc.rehearsal.run import Rehearsed, Wanted, rehearse
from kvmenc.rehearsal.runfile import run_file
from kvmenc.rehearsal.side import guest_layout

__all__ = [
    "BuiltIn",
    "DryRun",
    "Fault",
    "FaultKind",
    "RecordRefused",
    "Rehearsed",
    "Source",
    "Wanted",
    "fake_source",
    "far_target",
    "guest_layout",
    "local_source",
    "near_target",
    "parse_fault",
    "rehearse",
    "run_file",
]
