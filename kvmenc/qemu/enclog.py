"""A log of what a guest announced as private or shared, written since its start.

Two kinds of lines are known, in any mixture, with whatever stands before them in a line; lines of
other events are passed over:

- QEMU v10.0, accel/kvm/trace-events (since v9.1), of -trace enable=kvm_convert_memory::

    kvm_convert_memory start 0x1000000 size 0x200000 shared_to_private

- Linux v6.12, arch/x86/kvm/trace.h, kvm_hypercall, as tracefs and trace-cmd print it; number 12 is
  KVM_HC_MAP_GPA_RANGE, with gpa, pages and attributes::

    CPU 0/KVM-1234 [001] ..... 56.789: kvm_hypercall: nr 0xc a0 0x1000000 a1 0x200 a2 0x10 a3 0x0

A line tells what was asked for. The kernel traces a hypercall before it looks who calls (v6.12,
arch/x86/kvm/x86.c, __kvm_emulate_hypercall), so any program in the guest can put a line there: a
log is as honest as the guest.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kvmenc import uapi
from kvmenc.encstate.gfnstate import GFN_LIMIT
from kvmenc.encstate.hypercalls import MapGpaTracker
from kvmenc.errors import InputError
from kvmenc.qemu.text import MAX_LINE, PAGE_SIZE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path
    from typing import BinaryIO

    from numpy.typing import NDArray

    from kvmenc.encstate.gfnstate import Gfns
    from kvmenc.memory.slots import MemSlot

    Call = tuple[int, int, bool]
    """First gfn, the one after the last, private."""

__all__ = ["EncLog", "parse_enc_log", "read_enc_log"]

_EVENT = re.compile(rb"(kvm_convert_memory |kvm_hypercall: |kvm_set_user_memory |\[LOST )")
_CONVERTED = re.compile(
    rb"start 0x([0-9a-f]{1,16}) size 0x([0-9a-f]{1,16}) (shared_to_private|private_to_shared)\s*"
)
_CALLED = re.compile(
    rb"nr 0x([0-9a-f]{1,16}) a0 0x([0-9a-f]{1,16}) a1 0x([0-9a-f]{1,16}) a2 0x([0-9a-f]{1,16}) "
    rb"a3 0x[0-9a-f]{1,16}\s*"
)
# An announcement takes a hundred bytes here.
_MOST_CALLS = 1 << 20
_HEAD_LINES = 64
# Linux v6.12, kernel/trace/trace.c: before all lines, and where a buffer ran over.
_KEPT = re.compile(rb"# entries-in-buffer/entries-written: (\d{1,20})/(\d{1,20})\b")
_LOST = re.compile(rb"(\d{1,20}) EVENTS\]\s*")


@dataclass(frozen=True, slots=True)
class EncLog:
    """What a log says.

    Attributes:
        tracker: the state at its end; pages that it does not name are private.
        lines: how many announcements it holds.
        pages: their pages, each as often as it is announced.
        warnings: what makes the state doubtful, a line each.
    """

    tracker: MapGpaTracker
    lines: int
    pages: int
    warnings: tuple[str, ...]


def read_enc_log(path: Path, slots: Sequence[MemSlot]) -> EncLog:
    """Read a log file, as long as it is now.

    Args:
        path: the file; of any size, it is read line by line.
        slots: of the guest.

    Raises:
        InputError: it cannot be read or is no regular file, or as ``parse_enc_log``.
    """
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            info = os.fstat(file.fileno())
            if not stat.S_ISREG(info.st_mode):
                raise InputError(f"{path}: not a file; save the log to one")
            return parse_enc_log(_lines_of(file, info.st_size), slots, str(path))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error


def parse_enc_log(lines: Iterable[bytes], slots: Sequence[MemSlot], source: str = "log") -> EncLog:
    """Take every announcement, the later over the earlier.

    One that KVM refuses is passed over.

    Args:
        lines: of the log.
        slots: of the guest.
        source: what an error names.

    Raises:
        InputError: a known event is not of its format, a line is too long, or there is no
            announcement at all; names the line.
    """
    return _Reader(slots, source).run(lines)


class _Reader:
    def __init__(self, slots: Sequence[MemSlot], source: str) -> None:
        self._source = source
        self._tracker = MapGpaTracker(slots)
        self._calls: list[Call] = []
        self._lines = self._pages = self._lost = 0
        self._from_start = self._overwritten = False

    def run(self, lines: Iterable[bytes]) -> EncLog:
        for number, line in enumerate(lines, 1):
            if len(line) > MAX_LINE:
                raise self._error(number, f"longer than {MAX_LINE} characters", line)
            if event := _EVENT.search(line):
                self._take(event[1], line[event.end() :], number)
            elif number <= _HEAD_LINES and (kept := _KEPT.match(line)):
                self._overwritten = int(kept[1]) < int(kept[2])
        if not self._lines:
            raise InputError(
                f"{self._source}: no announcement in it; it holds kvm_convert_memory (QEMU 9.1 and "
                "newer, -trace) or kvm_hypercall (ftrace) since the guest's start"
            )
        self._apply()
        return EncLog(self._tracker, self._lines, self._pages, tuple(self._warnings()))

    def _take(self, event: bytes, rest: bytes, number: int) -> None:
        if event == b"kvm_set_user_memory ":
            self._from_start |= not self._lines
        elif event == b"[LOST ":
            lost = _LOST.fullmatch(rest)
            self._lost += int(lost[1]) if lost else 0
        elif call := self._call(event, rest, number):
            self._calls.append(call)
            self._lines += 1
            self._pages += call[1] - call[0]
            if len(self._calls) == _MOST_CALLS:
                self._apply()

    def _apply(self) -> None:
        if self._calls:
            gfns, end_gfns, private = last_calls(self._calls)
            self._tracker.apply_many(gfns[private], end_gfns[private], private=True)
            self._tracker.apply_many(gfns[~private], end_gfns[~private], private=False)
            self._calls.clear()

    def _call(self, event: bytes, rest: bytes, number: int) -> Call | None:
        """None: another hypercall, or a range that is refused."""
        form = _CALLED if event == b"kvm_hypercall: " else _CONVERTED
        match = form.fullmatch(rest)
        if not match:
            what = event.decode().rstrip(": ")
            raise self._error(number, f"no {what} that is known; cut off?", rest)
        if form is _CONVERTED:
            gpa, size = int(match[1], 16), int(match[2], 16)
            private = match[3] == b"shared_to_private"
            return None if size % PAGE_SIZE else _valid(gpa, size // PAGE_SIZE, private)
        nr, gpa, npages, attributes = (int(it, 16) for it in match.groups())
        private = bool(attributes & uapi.KVM_MAP_GPA_RANGE_ENCRYPTED)
        return _valid(gpa, npages, private) if nr == uapi.KVM_HC_MAP_GPA_RANGE else None

    def _warnings(self) -> Iterator[str]:
        if self._lost or self._overwritten:
            lost = f"{self._lost} events" if self._lost else "its oldest events"
            yield f"{self._source}: {lost} were lost: what they announced is not known"
        elif not self._from_start:
            yield (
                f"{self._source}: nothing in it shows that it begins with the guest: what was "
                "announced before it is not known"
            )

    def _error(self, number: int, why: str, line: bytes) -> InputError:
        shown = line[:60].decode(errors="replace").strip()
        return InputError(f"{self._source}, line {number}: {why}: {shown!r}")


def last_calls(calls: Sequence[Call]) -> tuple[Gfns, Gfns, NDArray[np.bool_]]:
    """The same state by ranges that do not overlap: of every gfn, its last call.

    Goes from the last call to the first, past what is decided already: each stretch between two
    ends of calls is decided once, and ``after`` leads on from those that are.

    Args:
        calls: at least one.

    Returns:
        Each range's first gfn, the one after its last, and whether it is private.
    """
    edges = np.unique(np.array([call[:2] for call in calls], np.int64))
    firsts = np.searchsorted(edges, [call[0] for call in calls]).tolist()
    ends = np.searchsorted(edges, [call[1] for call in calls]).tolist()
    after = list(range(len(edges)))
    decided = np.full(len(edges) - 1, -1, np.int8)
    for first, end, call in zip(reversed(firsts), reversed(ends), reversed(calls), strict=True):
        at = _undecided(after, first)
        while at < end:
            decided[at], after[at] = call[2], at + 1
            at = _undecided(after, at)
    named = np.flatnonzero(decided >= 0)
    return edges[named], edges[named + 1], decided[named] == 1


def _undecided(after: list[int], at: int) -> int:
    """The first stretch from ``at`` on that is not decided; shortens the way there."""
    while (following := after[at]) != at:
        after[at] = after[following]
        at = following
    return at


def _valid(gpa: int, npages: int, private: bool) -> Call | None:
    """None: KVM and QEMU refuse it. Gfns beyond every machine are cut off."""
    gfn = gpa // PAGE_SIZE
    if gpa % PAGE_SIZE or not npages or gfn >= GFN_LIMIT or gfn + npages >= 1 << 64:
        return None
    return gfn, min(gfn + npages, GFN_LIMIT), private


def _lines_of(file: BinaryIO, size: int) -> Iterator[bytes]:
    """Lines, or the beginning of one that is too long; a last one that is cut off is left out."""
    left = size
    while left > 0 and (line := file.readline(min(left, MAX_LINE + 1))):
        left -= len(line)
        if line.endswith(b"\n") or len(line) > MAX_LINE:
            yield line


def _without_waiting(path: str, flags: int) -> int:
    """A pipe that nobody writes to would be waited for."""
    return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)
