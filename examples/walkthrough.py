"""A walk through the library, step by step: from /dev/kvm to a plan. Prints what it does.

Needs nothing: the KVM is fakekvm, its guest a script that writes and flips pages.

    python examples/walkthrough.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kvmenc import uapi, units
from kvmenc.capture import open_capture, save_capture
from kvmenc.kvm import KvmSystem
from kvmenc.plan import Parameters, advise, make_grid, make_plan
from kvmenc.report.advice import advice_words
from kvmenc.scratchrun import ScratchRun, open_scratch_backend

if TYPE_CHECKING:
    from kvmenc.backend import Backend
    from kvmenc.capture import Bitmaps, Capture

SYNC_AT_MS = (25, 50, 100, 200, 400)


def ask_kvm(backend: Backend) -> None:
    """A backend carries out ioctls: this process, another one, the fake, or a recording."""
    print("1. A backend carries out ioctls; here it is fakekvm.")
    with KvmSystem.open(backend) as system:
        protect = system.check_extension(uapi.KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2)
        print(f"   Its KVM says {protect} for KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2.")
        with system.create_vm() as vm:
            print(f"   A VM is file descriptor {vm.fd}, closed at the end of its block.\n")


def watch_a_guest(backend: Backend) -> tuple[Capture, Bitmaps]:
    """Both bitmaps are read at each sync: dirty first, then private."""
    print("2. A guest runs. At each sync dirty is read, then private; flipped pages become dirty.")
    with ScratchRun(backend) as run:
        for slot in run.machine.layout.slots:
            print(f"   memslot {slot.slot_id}: gfn {slot.base_gfn:#x}, {slot.npages:,} pages")
        for at_ms, sample in zip(SYNC_AT_MS, run.syncs(SYNC_AT_MS), strict=True):
            print(
                f"   at {at_ms:3} ms: dirty"
                f" {sample.dirty_private_pages} private, {sample.dirty_shared_pages} shared;"
                f" {sample.flipped_pages} flipped"
            )
        return run.capture()


def keep(capture: Capture, bitmaps: Bitmaps, path: Path) -> None:
    """A capture is a file: one machine can look, and another one think."""
    save_capture(capture, path, bitmaps)
    print(f"\n3. What was seen is a file of {path.stat().st_size:,} bytes. Of its bitmaps:")
    with open_capture(path) as kept:
        for block in kept.capture.blocks:
            dirty = int(np.bitwise_count(kept.bitmap("dirty", block.name)).sum())
            print(f"   {block.name}: {dirty:,} of {block.npages:,} pages were written")


def plan(capture: Capture) -> None:
    """A plan is a pure function of a capture and of parameters."""
    print("\n4. A plan is a function of the capture and of what you decide.")
    for rate_pps in (400.0, 20_000.0):
        found = make_plan(capture, Parameters(private_rate_pps=rate_pps))
        ends = (
            "" if found.total_time_ms is None else f" in {units.format_time(found.total_time_ms)}"
        )
        print(f"   firmware of {rate_pps:g} pages/s: {found.verdict}{ends}; {found.reason}")


def ask_for_advice(capture: Capture) -> None:
    """Each change alone is searched for with the whole simulation."""
    heading, lines = advice_words(advise(capture, Parameters()))
    print("\n5. What would change the verdict is searched for with the whole simulation.")
    print("\n".join([f"   {heading}", *(f"   - {line}" for line in lines)]))


def sweep(capture: Capture) -> None:
    """Many plans of one guest."""
    parameters = Parameters(private_rate_pps=20_000)
    bandwidths, limits = [125e6, 1.25e9], [30.0, 300.0]
    print("\n6. A grid is the same over bandwidths and downtime limits.")
    for bandwidth, cells in make_grid(capture, bandwidths, limits, parameters).rows():
        row = ", ".join(f"{units.format_time(it.downtime_limit_ms)} {it.verdict}" for it in cells)
        print(f"   {units.format_bit_rate(bandwidth)}: {row}")


def main() -> None:
    """All steps."""
    backend = open_scratch_backend("fake")
    ask_kvm(backend)
    capture, bitmaps = watch_a_guest(backend)
    with tempfile.TemporaryDirectory() as folder:
        keep(capture, bitmaps, Path(folder) / "guest.capture")
    plan(capture)
    ask_for_advice(capture)
    sweep(capture)


if __name__ == "__main__":
    main()
