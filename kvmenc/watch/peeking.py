"""Watching by looks at KVM's own dirty log, through system calls that QEMU's process makes."""

from __future__ import annotations

import time
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from kvmenc.contents import Contents, DeviceWrites
from kvmenc.encstate.choose import AtHand
from kvmenc.qemu.enclog import read_enc_log
from kvmenc.qemu.live import read_layout
from kvmenc.watch.assemble import assemble
from kvmenc.watch.device import DeviceLog
from kvmenc.watch.findings import Findings
from kvmenc.watch.guard import Guard
from kvmenc.watch.looking import Looking
from kvmenc.watch.notes import notes_of
from kvmenc.watch.private import bitmap_source, offered_revision, private_source, with_state
from kvmenc.watch.schedule import SHORT_S, window_lengths_s
from kvmenc.watch.starter import LogStarter

if TYPE_CHECKING:
    from kvmenc.qemu.facts import Facts
    from kvmenc.qemu.monitor import Monitor
    from kvmenc.tracee import Injector
    from kvmenc.watch.wishes import OnPoint, Watched, Wishes

__all__ = ["watch_by_peeking"]

# Hashed at each look at contents: 256 MiB, about a tenth of a second.
CONTENT_PAGES = 65536


def watch_by_peeking(
    monitor: Monitor, facts: Facts, wishes: Wishes, injector: Injector, on_point: OnPoint
) -> Watched:
    """Watch a QEMU whose process may be looked into.

    Raises:
        CannotPeek: it cannot be shown that looking takes nothing from other readers.
        HostError: QEMU or its process does not play along.
    """
    opened_s = time.monotonic()
    guard = Guard(monitor)
    expected = read_layout(monitor).layout
    # What a user may have got wrong comes before anything is started.
    announced = read_enc_log(wishes.enc_log, expected.slots) if wishes.enc_log else None
    revision = offered_revision(wishes.revision) if wishes.revision else None
    with ExitStack() as cleanup:
        starter = LogStarter(monitor, facts, injector, expected)
        layout = starter.layout
        contents = cleanup.enter_context(Contents(facts.pid, layout)) if wishes.contents else None
        at_hand = AtHand(
            kind=facts.kind,
            bitmap=bitmap_source(injector, layout, revision) if revision else None,
            hypercalls=announced.tracker if announced else None,
            read_pages=contents.read_pages if contents else None,
        )
        choice = private_source(at_hand, layout, wishes.private)
        layout = with_state(layout, choice)
        findings = Findings(layout, opened_s)
        for length_s in window_lengths_s(wishes.seconds):
            peeks, start = starter.start(length_s)
            follow = (
                partial(_follow_devices, contents) if contents and not findings.device else None
            )
            looking = Looking(layout, choice.source, peeks, start, guard.change, follow)
            looking.run(length_s, partial(_report, on_point, start.at_s - opened_s))
            findings.add(looking, start.took_s)
            stopped_early = looking.ended_by == "log-stopped" and length_s == SHORT_S
            if looking.ended_by != "time" and not stopped_early:
                break
        notes = [*(announced.warnings if announced else ()), *notes_of(findings, facts)]
        watched = assemble(findings, facts, choice, contents, injector.stop_us, notes)
        if not findings.trouble:
            starter.wait()  # so that QEMU is left with its log off
        return watched


def _report(on_point: OnPoint, since_s: float, seconds: float, pages: int) -> None:
    on_point(since_s + seconds, pages)


def _follow_devices(contents: Contents) -> DeviceLog:
    writes = DeviceWrites(contents, contents.layout.blocks, CONTENT_PAGES, np.random.default_rng())
    return DeviceLog(writes, time.monotonic)
