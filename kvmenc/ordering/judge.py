"""Whether the destination's guest reads what the source's guest would have read.

Bytes are words in a free group: each reading and each road adds a key, and a key and its inverse
cancel. The source's guest key is ``s``, the destination's is ``d`` (guests never share one: it is
made by the firmware at RECEIVE_START, and tied to the address). A private page holds s(v). Sent raw
it arrives as s(v), and a guest that reads it as private gets d^-1 s (v): garbage. The firmware
decrypts with s and encrypts with d; a shared page v that is sent so arrives as d s^-1 (v): garbage.
Nothing here decides which road is right: that comes out.

The guest is stopped in the middle of what it does, and goes on at the destination. So a page is
judged at the stop and after every move that is still to come, in every order of those.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from kvmenc.ordering.explore import page_of, progress_of
from kvmenc.ordering.pages import Act, unpack

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from kvmenc.ordering.explore import Bucket
    from kvmenc.ordering.guests import Case

__all__ = ["Bytes", "Judge", "Memory", "Outcome", "Reading", "Twin", "by_road", "worst_reading"]


class Outcome(IntEnum):
    """How a run ended, from best to worst."""

    RIGHT = 0
    NOT_PROMISED = 1  # other bytes are read, where no guest may expect any
    NO_HOST = 2  # wrong; and so would be a last, complete sending by all that the kernel knows
    WRONG = 3


#: The writing before the stop that was the last, and any before that.
_NOW, _BEFORE = 0, -1


@dataclass(frozen=True, slots=True)
class Bytes:
    """What was once written, and the keys it went through since.

    Attributes:
        written: which writing it was.
        keys: (key, how often), the last applied last; no two neighbours have one key, none is 0.
    """

    written: int
    keys: tuple[tuple[str, int], ...] = ()

    def under(self, key: str, times: int) -> Bytes:
        """Encrypted so often; decrypted if negative."""
        keys = self.keys
        if keys and keys[-1][0] == key:
            times += keys[-1][1]
            keys = keys[:-1]
        return Bytes(self.written, (*keys, (key, times)) if times else keys)

    def __str__(self) -> str:
        text = "v" if self.written == _NOW else "older bytes" if self.written == _BEFORE else "w"
        for key, times in self.keys:
            for _ in range(abs(times)):
                text = f"{key}{'' if times > 0 else chr(39)}({text})"
        return text

    @property
    def is_whole(self) -> bool:
        """Just as written: no key is left."""
        return not self.keys


@dataclass(frozen=True, slots=True)
class Memory:
    """A page as a guest has it, on one side.

    Attributes:
        bytes: as they lie there.
        private: by the page table.
        key: the guest's on this side.
    """

    bytes: Bytes
    private: bool
    key: str

    @property
    def reading(self) -> Bytes:
        """What the guest reads."""
        return self.bytes.under(self.key, -int(self.private))

    def after(self, act: Act, written: int) -> Memory:
        """When the guest did this to it; ``written`` is new."""
        match act:
            case Act.WRITE:
                return replace(self, bytes=Bytes(written).under(self.key, int(self.private)))
            case Act.CONVERT:
                return replace(self, bytes=self.reading.under(self.key, int(not self.private)))
            case Act.FLIP:
                return replace(self, private=not self.private)
            case Act.RESET:
                return replace(self, private=True)
        return self


@dataclass(frozen=True, slots=True)
class Twin:
    """One page on both sides, once the guest was stopped.

    Attributes:
        source: as it would have been, had the guest gone on where it was.
        target: as it is at the destination.
        kernel_private: what the guest announced last.
        lost: converted and not written since.
    """

    source: Memory
    target: Memory
    kernel_private: bool
    lost: bool

    def after(self, act: Act, written: int) -> Twin:
        """When the guest did this on both sides; ``written`` is new."""
        source, target = self.source.after(act, written), self.target.after(act, written)
        kernel = act == Act.RESET or self.kernel_private != (act == Act.ANNOUNCE)
        lost = self.lost
        if act == Act.WRITE:
            lost = False
        elif act == Act.CONVERT:
            lost = not self.source.reading.is_whole
        elif act in {Act.FLIP, Act.RESET}:
            lost |= not source.reading.is_whole
        elif act == Act.ANNOUNCE:
            lost |= not replace(source, private=kernel).reading.is_whole
        return Twin(source, target, kernel, lost)

    def outcome(self, *, expects_old_bytes: bool) -> Outcome:
        """Of a reading just now: RIGHT, NOT_PROMISED or WRONG."""
        reading = self.source.reading
        if reading == self.target.reading:
            return Outcome.RIGHT
        promised = reading.is_whole and (expects_old_bytes or not self.lost)
        return Outcome.WRONG if promised else Outcome.NOT_PROMISED


@dataclass(frozen=True, slots=True)
class Reading:
    """A page read on both sides, after the guest made some more moves.

    Attributes:
        outcome: RIGHT, NOT_PROMISED or WRONG.
        source: what is read, had the guest stayed.
        target: what is read at the destination.
        moves: what was done to the page since the guest was stopped.
    """

    outcome: Outcome
    source: Bytes
    target: Bytes
    moves: tuple[tuple[Act, ...], ...]


#: For each vCPU what it is still going to do to a page, acts at once in one tuple.
ToCome = tuple[tuple[tuple[Act, ...], ...], ...]


class Judge:
    """Judges endings of one case.

    Args:
        case: the guest.
    """

    def __init__(self, case: Case) -> None:
        self._case = case
        self._known: dict[tuple[int, int], Outcome] = {}

    def outcomes(self, bucket: Bucket) -> NDArray[np.uint8]:
        """The ``Outcome`` of each ending: that of its worst page."""
        vcpus = range(len(self._case.programs))
        progress = [progress_of(bucket.states, self._case, vcpu) for vcpu in vcpus]
        worst = np.zeros(bucket.states.size, np.uint8)
        for page in range(self._case.npages):
            key = page_of(bucket.states, page)
            for made in progress:
                key = key << np.uint64(4) | made.astype(np.uint64)
            distinct, where = np.unique(key, return_inverse=True)
            judged = np.array([self._of_key(page, int(it)) for it in distinct], np.uint8)
            worst = np.maximum(worst, judged[where])
        return worst

    def _of_key(self, page: int, key: int) -> Outcome:
        if (page, key) not in self._known:
            vcpus = len(self._case.programs)
            made = [key >> 4 * (vcpus - 1 - vcpu) & 15 for vcpu in range(vcpus)]
            expects = self._case.order.expects_old_bytes
            judged = _judged(key >> 4 * vcpus, self._to_come(page, made), expects)
            self._known[page, key] = judged
        return self._known[page, key]

    def reading(self, page: int, state: int, made: Sequence[int]) -> Reading:
        """The worst reading of a page, given its state and how many moves each vCPU has made."""
        to_come = self._to_come(page, made)
        expects = self._case.order.expects_old_bytes
        return worst_reading(twin_of(state)[0], to_come, expects_old_bytes=expects)

    def _to_come(self, page: int, made: Sequence[int]) -> ToCome:
        return tuple(
            tuple(move.acts[page] for move in program[done:] if move.acts[page] != (Act.NOTHING,))
            for program, done in zip(self._case.programs, made, strict=True)
        )


@cache
def _judged(state: int, to_come: ToCome, expects_old_bytes: bool) -> Outcome:
    """How a run has ended for a page; NO_HOST if another sending would not have mended it."""
    twin, raw = twin_of(state)
    outcome = worst_reading(twin, to_come, expects_old_bytes=expects_old_bytes).outcome
    if outcome == Outcome.WRONG:
        ideal = replace(twin.target, bytes=by_road(raw, firmware=twin.kernel_private))
        twin = replace(twin, target=ideal)
        best = worst_reading(twin, to_come, expects_old_bytes=expects_old_bytes)
        if best.outcome == Outcome.WRONG:
            return Outcome.NO_HOST
    return outcome


def twin_of(state: int) -> tuple[Twin, Bytes]:
    """What a state of ``pages`` means when a migration has ended; and the source's bytes."""
    page = unpack(np.array([state], np.uint64))
    value = {name: int(getattr(page, name)[0]) for name in page.__slots__}
    private = bool(value["table_private"])
    source = Bytes(_NOW).under("s", value["power"])
    sent = Bytes(_BEFORE if value["stale"] else _NOW).under("s", value["sent_power"])
    target = by_road(sent, firmware=bool(value["by_firmware"]))
    twin = Twin(
        Memory(source, private, "s"),
        Memory(target, private, "d"),
        bool(value["kernel_private"]),
        bool(value["lost"]),
    )
    return twin, source


def by_road(read: Bytes, *, firmware: bool) -> Bytes:
    """What arrives of bytes that were read so, by the encrypted road or raw."""
    return read.under("s", -1).under("d", 1) if firmware else read


def worst_reading(twin: Twin, to_come: ToCome, *, expects_old_bytes: bool) -> Reading:
    """The worst of all readings: now, or after any moves that are still to come."""
    outcome = twin.outcome(expects_old_bytes=expects_old_bytes)
    worst = Reading(outcome, twin.source.reading, twin.target.reading, ())
    for vcpu, acts in enumerate(to_come):
        if acts:
            then = twin
            for act in acts[0]:
                then = then.after(act, written=1 + sum(map(len, to_come)))
            rest = (*to_come[:vcpu], acts[1:], *to_come[vcpu + 1 :])
            later = worst_reading(then, rest, expects_old_bytes=expects_old_bytes)
            if later.outcome > worst.outcome:
                worst = replace(later, moves=(acts[0], *later.moves))
    return worst
