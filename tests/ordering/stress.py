"""Guests that write and flip in threads of their own while they are migrated; every page compared.

The checker takes one page or two through every interleaving. Here the protocols run as they are,
ioctls and bitmaps and all, on a fake kernel with several memslots, beside vCPUs that run free; and
what the destination has in the end is read as its guest would read it.

Each page's word says under which key it is stored. So nobody has to say which road is right: what
was read, the road it went and the page table at the stop decide together what the guest reads.
"""

from __future__ import annotations

import random
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Self

import numpy as np

import fakekvm
from fakekvm.guests import Flip, Halt, WritePages
from kvmenc import uapi
from kvmenc.backend.fake import FakeBackend
from kvmenc.encstate.pageenc import PageEncSource
from kvmenc.guest.scratch import PAGE, GuestRam
from kvmenc.kvm import Exit, KvmSystem
from kvmenc.memory.layout import Layout
from kvmenc.memory.slots import MemSlot, RamBlock
from kvmenc.memory.words import from_pages
from kvmenc.ordering.protocols import Clearing, HostSync

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from concurrent.futures import Future

    from numpy.typing import NDArray

    from fakekvm.guests import Step
    from kvmenc.kvm import Vcpu
    from kvmenc.memory.maps import DirtyMap, PrivateMap
    from kvmenc.ordering.protocols import Protocol

    Pages = NDArray[np.int64]
    Flags = NDArray[np.bool_]
    Stored = NDArray[np.uint64]

__all__ = ["Guests", "Stress", "stress"]

_VCPUS = 2
# At most so many are written by one step, and so many runs of them in one turn. A page that is
# converted waits for its announcement while the rest of its turn is converted.
_RUN_PAGES, _TURN_RUNS = 8, 12

# RAMBlocks side by side in one memory, so that a page has one number among all.
_BLOCKS = (("ram", 440), ("dimm0", 61))
_NPAGES = sum(npages for _, npages in _BLOCKS)
# Memslots: first gfn, pages, page of the memory. In words of their RAMBlock they begin at bits 0,
# 32 (as q35's at 0xe0000), 0, 13 and 5, and end at 32, 0, 13, 56 and 50. Some pages are in none.
_SLOTS = ((0, 160, 0), (0xE0, 32, 224), (0x100, 77, 256), (0x1000, 107, 333), (0x2000, 45, 445))

_REVISION = uapi.REVISIONS["v9"]
_SYNCS = {uapi.KVM_GET_DIRTY_LOG, uapi.KVM_CLEAR_DIRTY_LOG, _REVISION.get}
# Before each of these, and before contents are read, the host waits for 0 to so many guest steps:
# quick hosts see a page in the middle of its conversion, slow ones all of it between two calls.
_PACES = (0, 1, 3, 8)
_LOOK_S, _SWITCH_S = 5e-5, 1e-4  # about what a step takes


class Guests(StrEnum):
    """In which order a guest does what it does to a page."""

    WRITE = "write"
    ANNOUNCE_FIRST = "flip, announce, write"
    IN_PLACE = "convert in place, announce"


@dataclass(slots=True)
class _Run:
    """Pages that are written and flipped together, by one vCPU only.

    Attributes:
        gfns, pages: they, for the guest and in its memory.
        vcpu: whose they are.
        text: what was last written.
        key: it is stored under the guest's.
        private: page table and announcement, wherever a guest can be stopped.
        whole: the guest may expect to read it; not so if it left its key, until written again.
    """

    gfns: Pages
    pages: Pages
    vcpu: int
    text: int = 0
    key: bool = True
    private: bool = True
    whole: bool = True


class _Worker:
    """What a vCPU does: the same for the same seed, however its thread and the host's interleave.

    Attributes:
        stopping: it should halt. It does so after its step, unless a page is converted that it has
            not announced: to a host that is a page like any written one, and no host gets it right.
        steps: how many it has carried out.
        page_steps: pages written, and pages flipped, one by one.
    """

    def __init__(self, runs: Sequence[_Run], guests: Sequence[Guests], seed: str) -> None:
        self.stopping = False
        self.steps = self.page_steps = 0
        self._runs, self._guests = runs, guests
        self._rng = random.Random(seed)
        self._owed = 0
        self._texts = 0

    def script(self) -> Iterator[Step]:
        """Its steps, without end."""
        while True:
            turn = _TURNS[self._rng.choice(self._guests)]
            runs = self._rng.sample(self._runs, self._rng.randint(1, _TURN_RUNS))
            for step, npages in turn(self, runs):
                yield step
                self.steps += 1
                self.page_steps += npages
                if self.stopping and not self._owed:
                    yield Halt()

    def _write_only(self, runs: list[_Run]) -> Iterator[tuple[Step, int]]:
        for run in runs:
            yield self._write(run)

    def _announce_first(self, runs: list[_Run]) -> Iterator[tuple[Step, int]]:
        for run in runs:
            yield self._announce(run)
        for run in runs[self._rng.randrange(2) :]:  # the first may stay as it is until some day
            yield self._write(run)

    def _in_place(self, runs: list[_Run]) -> Iterator[tuple[Step, int]]:
        self._owed = len(runs)
        for run in runs:
            yield self._convert(run)
        for run in runs:
            self._owed -= 1
            yield self._announce(run)

    def _write(self, run: _Run) -> tuple[Step, int]:
        self._renew(run)
        return self._store(run, key=run.private)

    def _convert(self, run: _Run) -> tuple[Step, int]:
        """What can be read stays as it reads, as a rule; the rest is written anew."""
        if not run.whole or self._rng.randrange(4) == 0:
            self._renew(run)
        return self._store(run, key=not run.private)

    def _renew(self, run: _Run) -> None:
        """A text that no page has had."""
        self._texts += 1
        run.text, run.whole = self._texts * _VCPUS + run.vcpu, True

    def _store(self, run: _Run, *, key: bool) -> tuple[Step, int]:
        run.key = key
        return WritePages(run.gfns, _stored(run.text, run.key)), run.gfns.size

    def _announce(self, run: _Run) -> tuple[Step, int]:
        run.private = not run.private
        run.whole &= run.key == run.private
        return Flip(int(run.gfns[0]), run.gfns.size, run.private), run.gfns.size


_TURNS: Mapping[Guests, Callable[[_Worker, list[_Run]], Iterator[tuple[Step, int]]]] = {
    Guests.WRITE: _Worker._write_only,
    Guests.ANNOUNCE_FIRST: _Worker._announce_first,
    Guests.IN_PLACE: _Worker._in_place,
}


def _stored(text: int, key: bool) -> int:
    """The word that a page holds: what was written, and the key it is under."""
    return text << 1 | key


@dataclass(frozen=True, slots=True)
class _Truth:
    """What the guests know of each page, once they are stopped.

    Attributes:
        stored: the word it holds.
        private, whole: as in ``_Run``.
        owned: it is in a memslot.
    """

    stored: Stored
    private: Flags
    whole: Flags
    owned: Flags


class _PausingBackend(FakeBackend):
    """Lets something happen before each ioctl of a sync."""

    def __init__(self, host: fakekvm.Host, pause: Callable[[], None]) -> None:
        super().__init__(host)
        self._pause = pause

    def ioctl(self, fd: int, request: int, arg: int) -> int:
        if request in _SYNCS:
            self._pause()
        return super().ioctl(fd, request, arg)


class _Machine:
    """A VM on a fake host, and guests that can be let run and stopped again.

    Attributes:
        vm, layout, private: what a ``HostSync`` wants.
        words: the first word of each page of its memory.
        rng: whatever the host does at random.
        pace: how many steps at most the host waits for, where it does.
    """

    def __init__(self, guests: Sequence[Guests], seed: int, *, manual_protect: bool) -> None:
        self.rng = random.Random(f"host {seed}")
        self.pace = 0
        self._running: list[Future[None]] = []
        self._runs = _deal(random.Random(f"runs {seed}"))
        self._workers = [
            _Worker([run for run in self._runs if run.vcpu == vcpu], guests, f"vCPU {vcpu} {seed}")
            for vcpu in range(_VCPUS)
        ]
        self._cleanup = ExitStack()
        with ExitStack() as on_error:
            on_error.callback(self._cleanup.close)
            self._build(manual_protect=manual_protect)
            on_error.pop_all()

    def _build(self, *, manual_protect: bool) -> None:
        enter = self._cleanup.enter_context
        ram = GuestRam("all", _NPAGES)
        self._cleanup.callback(ram.close)
        self.words: Stored = np.frombuffer(ram.area, "<u8")[:: PAGE // 8]
        self.words[:] = _stored(0, key=True)
        self.layout = _layout(ram.address)
        backend = _PausingBackend(fakekvm.host_named(f"sev-{_REVISION.name}"), self.pause)
        self.vm = enter(enter(KvmSystem.open(backend)).create_vm())
        if manual_protect:
            self.vm.enable_manual_protect()
        for slot in self.layout.slots:
            self.vm.set_slot(slot)
        self.private = PageEncSource(self.vm, _REVISION)
        self._vcpus = [enter(self.vm.create_vcpu(vcpu)) for vcpu in range(_VCPUS)]
        for vcpu, worker in enumerate(self._workers):
            backend.kernel.load_guest(self.vm.fd, vcpu, worker.script())
        self._pool = enter(ThreadPoolExecutor(_VCPUS, "vCPU"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        del self.words
        self._cleanup.close()

    @contextmanager
    def running(self) -> Iterator[None]:
        """The guests run, each vCPU in its thread, until the end of the block."""
        self._running = [self._pool.submit(_run_to_halt, vcpu) for vcpu in self._vcpus]
        try:
            yield
        finally:
            self._set_stopping(stopping=True)
            running, self._running = self._running, []
            errors = [it.exception() for it in running]  # waits for each
            self._set_stopping(stopping=False)
        for error in filter(None, errors):
            raise error

    def _set_stopping(self, *, stopping: bool) -> None:
        for worker in self._workers:
            worker.stopping = stopping

    def pause(self) -> None:
        """Wait until the guests have made a few more steps, or none; not if they are stopped."""
        until = self.steps + self.rng.randint(0, self.pace)
        while self.steps < until and self._running and not any(it.done() for it in self._running):
            time.sleep(_LOOK_S)

    @property
    def steps(self) -> int:
        """Of all vCPUs."""
        return sum(worker.steps for worker in self._workers)

    @property
    def page_steps(self) -> int:
        """Of all vCPUs."""
        return sum(worker.page_steps for worker in self._workers)

    def truth(self) -> _Truth:
        """What the guests know, as arrays; they must be stopped."""
        truth = _Truth(
            np.zeros(_NPAGES, np.uint64), *(np.zeros(_NPAGES, np.bool_) for _ in range(3))
        )
        for run in self._runs:
            at = slice(int(run.pages[0]), int(run.pages[-1]) + 1)
            truth.stored[at] = _stored(run.text, run.key)
            truth.private[at], truth.whole[at], truth.owned[at] = run.private, run.whole, True
        return truth

    def gfn(self, page: int) -> int:
        """Where the guest has a page."""
        return next(
            gfn + page - first for gfn, npages, first in _SLOTS if 0 <= page - first < npages
        )


def _layout(address: int) -> Layout:
    blocks, first = [], 0
    for name, npages in _BLOCKS:
        blocks.append(RamBlock(name, npages, address + first * PAGE))
        first += npages
    slots = [
        MemSlot(slot_id, gfn, npages, address + page * PAGE)
        for slot_id, (gfn, npages, page) in enumerate(_SLOTS)
    ]
    return Layout(slots, blocks)


def _deal(rng: random.Random) -> list[_Run]:
    """All memslots cut into short runs, dealt out in turn: vCPUs share nearly every word."""
    runs: list[_Run] = []
    for gfn, npages, page in _SLOTS:
        first = 0
        while first < npages:
            at = np.arange(first, min(first + rng.randint(1, _RUN_PAGES), npages))
            runs.append(_Run(gfn + at, page + at, len(runs) % _VCPUS))
            first = int(at[-1]) + 1
    return runs


def _run_to_halt(vcpu: Vcpu) -> None:
    while (reason := vcpu.run()) == Exit.INTR:
        pass
    if reason != Exit.HLT:
        msg = f"a vCPU stopped: {reason.name}"
        raise RuntimeError(msg)


class _Migration:
    """One migration of a machine's guests, from the first sync to the comparison."""

    def __init__(self, machine: _Machine, protocol: Protocol) -> None:
        self._machine = machine
        self._host = HostSync(protocol, machine.vm, machine.private, machine.layout)
        self._chance = np.random.default_rng(machine.rng.getrandbits(32))
        self._live_rounds = machine.rng.randint(1, 3)
        machine.pace = machine.rng.choice(_PACES)
        self._sent: Stored = np.zeros(_NPAGES, np.uint64)
        self._by_firmware = np.zeros(_NPAGES, np.bool_)
        self._round = np.zeros(_NPAGES, np.int64)

    def run(self) -> tuple[list[str], int]:
        """Migrate; returns the pages that are wrong, a line each, and how many states are."""
        with self._machine.running():
            for number in range(self._live_rounds):
                self._send(number, cut_short=self._machine.rng.randrange(2) == 0)
        self._send(self._live_rounds)
        truth = self._machine.truth()
        states = truth.owned & (_flat(self._host.maps.private) != truth.private)
        return [self._describe(page, truth) for page in self._wrong(truth)], int(states.sum())

    def _send(self, number: int, *, cut_short: bool = False) -> None:
        self._host.sync()
        self._host.before_reading()
        private, dirty = _flat(self._host.maps.private), _flat(self._host.maps.dirty)
        pages = self._chance.permutation(np.flatnonzero(dirty))
        left = pages.size // 4 if cut_short else 0
        self._set_dirty(pages[:left])
        for some in np.array_split(pages[left:], 4):
            self._machine.pause()
            self._sent[some] = self._machine.words[some]
            self._by_firmware[some], self._round[some] = private[some], number
        self._host.after_reading()

    def _set_dirty(self, pages: Pages) -> None:
        """Leave these pages to the next round."""
        maps, first = self._host.maps, 0
        maps.clear_dirty()
        for dirty in maps.dirty.values():
            mine = pages[(pages >= first) & (pages < first + dirty.npages)]
            dirty.words |= from_pages(mine - first, dirty.npages)
            first += dirty.npages

    def _wrong(self, truth: _Truth) -> list[int]:
        lost = truth.owned & (self._machine.words != truth.stored)
        assert not lost.any(), f"the source itself holds something else: {lost.nonzero()[0]}"
        # The firmware takes the source's key off and puts the destination's on. So it reads as it
        # was written if it was stored as its road takes it for, and the page table says the same.
        key = (self._sent & np.uint64(1)).astype(np.bool_)
        reads = (key == self._by_firmware) & (self._by_firmware == truth.private)
        same = self._sent >> np.uint64(1) == truth.stored >> np.uint64(1)
        wrong: list[int] = np.flatnonzero(truth.owned & truth.whole & ~(reads & same)).tolist()
        return wrong

    def _describe(self, page: int, truth: _Truth) -> str:
        holds, sent = int(truth.stored[page]), int(self._sent[page])
        return (
            f"gfn {self._machine.gfn(page):#x}, {_state(bool(truth.private[page]))}, holds"
            f" {_shown(holds)}; sent in round {self._round[page] + 1} of {self._live_rounds + 1}"
            f" {'through the firmware' if self._by_firmware[page] else 'raw'}: {_shown(sent)}"
        )


def _flat(maps: Mapping[str, DirtyMap] | Mapping[str, PrivateMap]) -> Flags:
    return np.concatenate([it.at(np.arange(it.npages)) for it in maps.values()])


def _state(private: bool) -> str:
    return "private" if private else "shared"


def _shown(word: int) -> str:
    return f"text {word >> 1} stored {_state(bool(word & 1))}"


@dataclass(slots=True)
class Stress:
    """What came of it.

    Attributes:
        protocol, guests, seed: what was run.
        migrations: how many were.
        steps: of all vCPUs' scripts.
        page_steps: pages written, and pages flipped, in these.
        seconds: it took.
        wrong_states: pages that the host took for private in the end and were shared, or the other
            way round, in all migrations together.
        wrong: of the last migration, a line for each page that reads wrong at the destination.
    """

    protocol: str
    guests: Sequence[Guests]
    seed: int
    migrations: int = 0
    steps: int = 0
    page_steps: int = 0
    seconds: float = 0.0
    wrong_states: int = 0
    wrong: Sequence[str] = ()

    def __str__(self) -> str:
        guests = "; or ".join(self.guests)
        rate = self.page_steps / max(self.seconds, 1e-9)
        summary = (
            f"{self.protocol}; guests that {guests}; seed {self.seed}:"
            f" {self.migrations} migrations, {self.page_steps} pages written or flipped"
            f" in {self.steps} steps, {rate:.0f} a second;"
            f" wrong: {len(self.wrong)} pages, {self.wrong_states} states"
        )
        return "\n  ".join([summary, *self.wrong[:20]])


def stress(
    protocol: Protocol, guests: Sequence[Guests], seed: int, page_steps: int, seconds: float
) -> Stress:
    """Migrate guests over and over, until a page is wrong.

    Args:
        protocol: the host's.
        guests: what the guests do, each as likely as the others.
        seed: of what the vCPUs do, and how the host reads; when which does so is up to threads.
        page_steps: stop when the guests have made so many.
        seconds: stop after so many.
    """
    found, began = Stress(protocol.name, guests, seed), time.monotonic()
    manual = protocol.clearing != Clearing.BY_GET
    with _switching_often(), _Machine(guests, seed, manual_protect=manual) as machine:
        while not found.wrong and found.page_steps < page_steps and found.seconds < seconds:
            found.wrong, wrong_states = _Migration(machine, protocol).run()
            found.wrong_states += wrong_states
            found.migrations += 1
            found.steps, found.page_steps = machine.steps, machine.page_steps
            found.seconds = time.monotonic() - began
    return found


@contextmanager
def _switching_often() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH_S)
    try:
        yield
    finally:
        sys.setswitchinterval(before)
