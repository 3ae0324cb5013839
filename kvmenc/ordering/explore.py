"""Every interleaving of a guest's moves and a host's, each state visited once.

States are numbers, a bucket of them is an array, and a move takes a whole bucket through a table.
A bucket holds the states after so many host moves and so many guest moves, each with the number of
interleavings that lead there: they are counted, not listed. (Explicit-state search with states
merged is what TLC and SPIN do; merging by symmetry is E. A. Emerson and A. P. Sistla, "Symmetry and
model checking", 1996.) Merged are: runs that came to the same state; written values
(``pages``); and, where both vCPUs do the same to a page each, a state and its mirror image, which
is sound because the sync code treats the two pages alike; that is checked on its table.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, reduce
from itertools import product
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from kvmenc.ordering.guests import Xbzrle
from kvmenc.ordering.hostcode import Call, table_index
from kvmenc.ordering.pages import BIT, PAGE_BITS, Act, start, table

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from kvmenc.ordering.guests import Case
    from kvmenc.ordering.hostcode import HostCode, SyncCode
    from kvmenc.ordering.pages import States

__all__ = ["Bucket", "Ending", "Explorer", "HostMove", "page_of", "progress_of"]

#: Bits of a state that say how far a vCPU is.
_PROGRESS_BITS = 4
_PAGE_MASK = np.uint64((1 << PAGE_BITS) - 1)
_PROGRESS_MASK = np.uint64((1 << _PROGRESS_BITS) - 1)

_ONE = np.uint64(1)

_ACTS = {
    Call.GET_DIRTY: Act.GET_DIRTY,
    Call.GET_AND_CLEAR: Act.GET_AND_CLEAR,
    Call.CLEAR: Act.CLEAR,
    Call.GET_PRIVATE: Act.GET_PRIVATE,
}


class Bucket(NamedTuple):
    """States and, for each, how many interleavings lead to it."""

    states: States
    runs: NDArray[np.int64]


class Ending(NamedTuple):
    """All ways in which a migration of so many live rounds ends: sent, the guest stopped."""

    live_rounds: int
    bucket: Bucket


@dataclass(frozen=True, slots=True)
class HostMove:
    """A step of the host.

    Attributes:
        name: what a timeline calls it.
        choices: what it may do: acts on each page.
        settles: the code whose last question this was: the host's bitmaps change.
        then: what is done to each page after that.
    """

    name: str
    choices: tuple[tuple[Act, ...], ...]
    settles: SyncCode | None = None
    then: tuple[Act, ...] = ()


def host_moves(case: Case, sync: SyncCode, nth: int, *, live: bool) -> list[HostMove]:
    """Round ``nth``: the sync's calls in its own order, then a visit to each page.

    In a live round pages are visited in any order; when the guest is stopped that cannot matter.
    Whatever is read is sent by the road that the sync settled on, and nothing in the host changes
    that before the next one: so to read and to send are one move.
    """
    calls = [*sync.calls, *sync.after]
    last_get = max(at for at, call in enumerate(calls) if call != Call.CLEAR)
    last_use = max(at for at, call in enumerate(calls) if call == Call.CLEAR or at == last_get)
    moves = [
        HostMove(
            call,
            ((_ACTS[call],) * case.npages,),
            sync if at == last_get else None,
            (Act.FORGET_PRIVATE,) * (at == last_get) + (Act.FORGET_DIRTY,) * (at == last_use),
        )
        for at, call in enumerate(calls)
    ]
    return [*moves[: len(sync.calls)], *_visits(case, nth, live=live), *moves[len(sync.calls) :]]


def _visits(case: Case, nth: int, *, live: bool) -> Iterator[HostMove]:
    send = Act.SEND
    if nth:  # QEMU starts its cache after the first round
        send = {
            Xbzrle.OFF: Act.SEND,
            Xbzrle.EVICTS: Act.SEND_XBZRLE,
            Xbzrle.KEEPS: Act.SEND_XBZRLE_KEPT,
        }[case.xbzrle]
    every, none = (send,) * case.npages, (Act.LEAVE,) * case.npages
    leave = (none,) if live and case.cuts_rounds else ()
    if live and case.npages == 2:
        one = (send, Act.NOTHING), (Act.NOTHING, send)
        yield HostMove("read and send a page", (*one, *leave))
        yield HostMove("read and send the other", (every, *leave))
    else:
        yield HostMove("read and send", (every, *leave))


def page_of(states: States, page: int) -> States:
    """The state of one page."""
    return states >> np.uint64(page * PAGE_BITS) & _PAGE_MASK


def progress_of(states: States, case: Case, vcpu: int) -> NDArray[np.intp]:
    """How many of its moves a vCPU has made."""
    return (states >> _progress_shift(case, vcpu) & _PROGRESS_MASK).astype(np.intp)


def _progress_shift(case: Case, vcpu: int) -> np.uint64:
    return np.uint64(case.npages * PAGE_BITS + vcpu * _PROGRESS_BITS)


class Explorer:
    """All runs of a guest against a host.

    Args:
        case: the guest.
        code: the host's sync.
        live_rounds: the most there are.
        keeps: keep all buckets, and merge no mirror images, so that a run can be told afterwards.

    Attributes:
        case: as given.
        states: how many there are, so far.
        steps: from one to another, likewise.
        history: with ``keeps``: what the host did last, and the buckets after that, by how many
            moves the guest has made.
    """

    def __init__(
        self, case: Case, code: HostCode, live_rounds: int, *, keeps: bool = False
    ) -> None:
        self.case = case
        self._code = code
        self._live_rounds = live_rounds
        self._keeps = keeps
        self._mirrors = case.is_symmetric and not keeps
        if self._mirrors:
            _check_mirror(code)
        self.states = self.steps = 0
        self.history: list[tuple[HostMove | None, dict[int, Bucket]]] = []

    def endings(self) -> Iterator[Ending]:
        """Each number of live rounds, and how migrations of so many end."""
        buckets = self._grown(None, {0: self._start()})
        for nth in range(self._live_rounds):
            for move in self.moves(nth, live=True):
                moved = {made: self._after(it, move) for made, it in buckets.items()}
                buckets = self._grown(move, moved)
            yield Ending(nth + 1, self._stopped(nth + 1, buckets))

    def _start(self) -> Bucket:
        states = [
            sum(start(private=it) << page * PAGE_BITS for page, it in enumerate(private))
            for private in self.case.starts
        ]
        return self._merged([Bucket(np.array(states, np.uint64), np.ones(len(states), np.int64))])

    def _grown(self, move: HostMove | None, buckets: dict[int, Bucket]) -> dict[int, Bucket]:
        """With all that the guest may do before the host's next move."""
        made = 0
        while made in buckets:
            bucket, made = buckets[made], made + 1
            moved = [buckets[made]] if made in buckets else []
            for vcpu in range(len(self.case.programs)):
                able, states = self.guest_step(bucket.states, vcpu)
                moved.append(Bucket(states, bucket.runs[able]))
            if any(it.states.size for it in moved):
                buckets[made] = self._merged(moved)
        self.states += sum(it.states.size for it in buckets.values())
        if self._keeps:
            self.history.append((move, buckets))
        return buckets

    def guest_step(self, states: States, vcpu: int) -> tuple[NDArray[np.bool_], States]:
        """A vCPU's next move: the states in which it has one, and what becomes of them."""
        program = self.case.programs[vcpu]
        progress = progress_of(states, self.case, vcpu)
        able = progress < len(program)
        states, progress = states[able], progress[able]
        for page in range(self.case.npages):
            tables = self._tables([move.acts[page] for move in program])
            states = _with_page(states, page, tables[progress, page_of(states, page)])
        return able, states + (_ONE << _progress_shift(self.case, vcpu))

    def host_step(self, states: States, move: HostMove, choice: int) -> States:
        """A move of the host, by one of its choices."""
        for page, act in enumerate(move.choices[choice]):
            states = self._act(states, page, (act,))
        if move.settles:
            states = _settled(states, self.case.npages, move.settles)
        for page in range(self.case.npages if move.then else 0):
            states = self._act(states, page, move.then)
        return states

    def stop(self, states: States, live_rounds: int) -> States:
        """What becomes of states when the guest is stopped: nothing comes between any more."""
        for move in self.moves(live_rounds, live=False):
            states = self.host_step(states, move, 0)
        return states

    def moves(self, nth: int, *, live: bool) -> list[HostMove]:
        """What the host does in a round, by its own code."""
        sync = self._code.later if nth else self._code.first
        return host_moves(self.case, sync, nth, live=live)

    def _after(self, bucket: Bucket, move: HostMove) -> Bucket:
        choices = range(len(move.choices))
        moved = [self.host_step(bucket.states, move, choice) for choice in choices]
        return self._merged([Bucket(states, bucket.runs) for states in moved])

    def _act(self, states: States, page: int, acts: tuple[Act, ...]) -> States:
        return _with_page(states, page, self._tables([acts])[0, page_of(states, page)])

    def _tables(self, acts: list[tuple[Act, ...]]) -> NDArray[np.uint32]:
        return _stacked(tuple(acts), self.case.xbzrle != Xbzrle.OFF)

    def _stopped(self, nth: int, buckets: Mapping[int, Bucket]) -> Bucket:
        bucket = self._merged(list(buckets.values()))
        bucket = self._merged([Bucket(self.stop(bucket.states, nth), bucket.runs)])
        self.states += bucket.states.size
        return bucket

    def _merged(self, buckets: Sequence[Bucket]) -> Bucket:
        """One bucket, each state once."""
        states = np.concatenate([it.states for it in buckets])
        runs = np.concatenate([it.runs for it in buckets])
        self.steps += states.size
        if self._mirrors:
            states = np.minimum(states, _mirrored(states))
        order = np.argsort(states, kind="stable")
        states = states[order]
        first = np.flatnonzero(np.append(True, states[1:] != states[:-1]))
        return Bucket(states[first], np.add.reduceat(runs[order], first))


@cache
def _stacked(acts: tuple[tuple[Act, ...], ...], xbzrle: bool) -> NDArray[np.uint32]:
    return np.stack([table(it, xbzrle=xbzrle) for it in acts])


def _with_page(states: States, page: int, new: NDArray[np.uint32]) -> States:
    shift = np.uint64(page * PAGE_BITS)
    return states & ~(_PAGE_MASK << shift) | new.astype(np.uint64) << shift


def _settled(states: States, npages: int, sync: SyncCode) -> States:
    """The host's bitmaps after the sync, as its own code made them."""
    inputs = ("dirty", "private", "got_dirty", "got_private")
    where = [page * PAGE_BITS + BIT[name] for name in inputs for page in range(npages)]
    bits = ((states >> np.uint64(bit) & _ONE) for bit in where)
    index = reduce(np.bitwise_or, (it << np.uint64(at) for at, it in enumerate(bits)))
    held = sync.table[index.astype(np.intp)].astype(np.uint64)
    for at, bit in enumerate(where[: 2 * npages]):
        new = held >> np.uint64(at) & _ONE
        states = states & ~np.uint64(1 << bit) | new << np.uint64(bit)
    return states


def _mirrored(states: States) -> States:
    """Page and progress of vCPU 0 changed for those of vCPU 1."""
    low, high = page_of(states, 0), page_of(states, 1)
    shift = np.uint64(2 * PAGE_BITS)
    first = states >> shift & _PROGRESS_MASK
    second = states >> shift + np.uint64(_PROGRESS_BITS) & _PROGRESS_MASK
    pages = high | low << np.uint64(PAGE_BITS)
    mirrored: States = pages | second << shift | first << shift + np.uint64(_PROGRESS_BITS)
    return mirrored


def _check_mirror(code: HostCode) -> None:
    """Raise RuntimeError if the sync code does not treat two pages alike."""
    swap = (0, 2, 1, 3)
    for sync in (code.first, code.later):
        for bits in product(range(4), repeat=4):
            held = int(sync.table[table_index(2, *bits)])
            mirror = int(sync.table[table_index(2, *(swap[it] for it in bits))])
            if mirror != swap[held & 3] | swap[held >> 2] << 2:
                msg = f"the sync code treats two pages differently, given {bits}"
                raise RuntimeError(msg)
