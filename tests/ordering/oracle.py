"""Runs one by one, nothing merged, with the sync code itself at work: slow and obvious.

A kernel of two ints behind kvmenc's seam, pages that hold lists of keys, and a schedule that says
who moves next. ``HostSync`` runs on it as it would on a real VM: guest moves happen inside its
ioctls, just before they take effect. Shares no code with the explorer or its judge.
"""

from __future__ import annotations

import ctypes
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from kvmenc import uapi
from kvmenc.encstate.pageenc import PageEncSource
from kvmenc.kvm import KvmSystem
from kvmenc.memory.layout import Layout
from kvmenc.memory.slots import MemSlot, RamBlock
from kvmenc.ordering.pages import Act
from kvmenc.ordering.protocols import Clearing, HostSync, Protocol

if TYPE_CHECKING:
    import mmap
    from collections.abc import Callable, Iterator

    from kvmenc.ordering.guests import Case, Move

HOST = -1
RIGHT, NOT_PROMISED, NO_HOST, WRONG = range(4)

_ENC = uapi.REVISIONS["v9"]
_BLOCK_PAGES, _FIRST = 200, 100


def apply_key(data: list[str], key: str) -> list[str]:
    """One more key at the end; a key and its inverse (``x`` and ``x'``) cancel."""
    inverse = key[:-1] if key.endswith("'") else key + "'"
    return data[:-1] if data[-1] == inverse else [*data, key]


@dataclass
class GuestPage:
    """A page of one side: the value written last and the keys over it, and the page table's bit."""

    key: str
    data: list[str]
    private: bool

    def read(self) -> list[str]:
        return apply_key(self.data, self.key + "'") if self.private else self.data

    def store(self, value: list[str], *, private: bool) -> None:
        self.data = apply_key(value, self.key) if private else value


@dataclass
class World:
    """The guest and its kernel.

    Attributes:
        pages: of the source.
        dirty, private: the kernel's.
        unwritten: pages that were converted and not written since.
    """

    pages: list[GuestPage]
    private: list[bool]
    dirty: list[bool]
    unwritten: list[bool]
    writes: Iterator[int]

    def do(self, move: Move) -> None:
        value = f"value {next(self.writes)}"
        for page, acts in enumerate(move.acts):
            for act in acts:
                self._do(page, act, value)

    def _do(self, number: int, act: Act, value: str) -> None:
        page = self.pages[number]
        if act == Act.WRITE:
            page.store([value], private=page.private)
            self.dirty[number], self.unwritten[number] = True, False
        elif act == Act.CONVERT:
            self.unwritten[number] = len(page.read()) > 1
            page.store(page.read(), private=not page.private)
            self.dirty[number] = True
        elif act == Act.FLIP:
            page.private = not page.private
            self._turned(number, private=page.private)
        elif act == Act.ANNOUNCE:
            self.private[number] = not self.private[number]
            self._turned(number, private=self.private[number])
        elif act == Act.RESET:
            page.private = self.private[number] = True
            self._turned(number, private=True)

    def _turned(self, number: int, *, private: bool) -> None:
        """Content under another key than this state's is as good as gone."""
        page = self.pages[number]
        if len(GuestPage(page.key, page.data, private).read()) > 1:
            self.unwritten[number] = True


class Kernel:
    """A ``Backend`` whose ioctls let the guest move first."""

    name = "oracle"

    def __init__(self, world: World, before: Callable[[], None], *, get_clears: bool) -> None:
        self.world, self.before, self.get_clears = world, before, get_clears

    def open(self, path: str, flags: int) -> int:
        return 0

    def close(self, fd: int) -> None:
        pass

    def mmap(self, fd: int, length: int, offset: int) -> mmap.mmap:
        raise NotImplementedError

    def ioctl(self, fd: int, request: int, arg: int) -> int:
        if request == uapi.KVM_GET_API_VERSION:
            return uapi.KVM_API_VERSION
        if request == uapi.KVM_GET_DIRTY_LOG:
            self.before()
            self._write(uapi.kvm_dirty_log.from_address(arg).dirty_bitmap, self.world.dirty)
            if self.get_clears:
                self.world.dirty[:] = [False] * len(self.world.dirty)
        elif request == _ENC.get:
            self.before()
            self._write(uapi.kvm_page_enc_bitmap.from_address(arg).enc_bitmap, self.world.private)
        elif request == uapi.KVM_CLEAR_DIRTY_LOG:
            self.before()
            bitmap = uapi.kvm_clear_dirty_log.from_address(arg).dirty_bitmap
            bits = ctypes.c_uint64.from_address(bitmap).value
            for page in range(len(self.world.dirty)):
                self.world.dirty[page] &= not bits >> page & 1
        return 0

    def _write(self, address: int, pages: list[bool]) -> None:
        bits = sum(bit << page for page, bit in enumerate(pages))
        ctypes.c_uint64.from_address(address).value = bits


@dataclass
class Migration:
    """One run of a case against a protocol, by a schedule.

    Attributes:
        schedule: a vCPU's number for its next move, or HOST for the host's; the visits of a live
            round are told by ``HOST - 1 - page``.
    """

    protocol: Protocol
    case: Case
    start: tuple[bool, ...]
    live_rounds: int
    schedule: list[int]
    sent: dict[int, list[str]] = field(default_factory=dict)

    def run(self) -> int:
        """RIGHT, NOT_PROMISED, NO_HOST or WRONG."""
        numbers = iter(range(10**6))
        pages = [GuestPage("s", ["before"], private=False) for _ in self.start]
        for page, private in zip(pages, self.start, strict=True):
            page.private = private
            page.store([f"value {next(numbers)}"], private=private)
        count = len(pages)
        self._world = World(pages, list(self.start), [True] * count, [False] * count, numbers)
        self._made = [0] * len(self.case.programs)
        self._left = list(self.schedule)
        self._stopped = False
        self._host_runs()
        return max(self._judged(page) for page in range(count))

    def _host_runs(self) -> None:
        clears = self.protocol.clearing == Clearing.BY_GET
        kernel = Kernel(self._world, self._guest_moves, get_clears=clears)
        vm = KvmSystem.open(kernel).create_vm()
        count = len(self.start)
        slot = MemSlot(0, 0x100, count, _FIRST * 4096)
        layout = Layout([slot], [RamBlock("ram", _BLOCK_PAGES, 0)])
        host = HostSync(self.protocol, vm, PageEncSource(vm, _ENC), layout)
        for _ in range(self.live_rounds):
            self._round(host)
        self._let_guest_move()
        assert not self._left
        self._stopped = True
        self._round(host)

    def _round(self, host: HostSync) -> None:
        host.sync()
        host.before_reading()
        for nth in range(len(self.start)):
            page = nth if self._stopped else self._visit()
            self._send(host, page)
        host.after_reading()

    def _guest_moves(self) -> None:
        if self._stopped:
            return
        self._let_guest_move()
        assert self._left.pop(0) == HOST

    def _visit(self) -> int:
        self._let_guest_move()
        return HOST - 1 - self._left.pop(0)

    def _let_guest_move(self) -> None:
        while self._left and self._left[0] >= 0:
            vcpu = self._left.pop(0)
            self._world.do(self.case.programs[vcpu][self._made[vcpu]])
            self._made[vcpu] += 1

    def _send(self, host: HostSync, page: int) -> None:
        dirty, private = host.maps.dirty["ram"], host.maps.private["ram"]
        at = np.array([_FIRST + page])
        if dirty.at(at)[0]:
            self.sent[page] = by_road(
                self._world.pages[page].data, firmware=bool(private.at(at)[0])
            )
            dirty.words[(_FIRST + page) // 64] &= ~np.uint64(1 << (_FIRST + page) % 64)

    def _judged(self, page: int) -> int:
        outcome = self._worst(page, self.sent[page])
        if outcome == WRONG:
            data = self._world.pages[page].data
            ideal = by_road(data, firmware=self._world.private[page])
            if self._worst(page, ideal) == WRONG:
                return NO_HOST
        return outcome

    def _worst(self, page: int, arrived: list[str]) -> int:
        """Of readings now, and after any of the moves that are to come, in any order of them."""
        left = [
            program[made:] for program, made in zip(self.case.programs, self._made, strict=True)
        ]
        return max(
            self._reading(page, arrived, moves)
            for order in merges(left)
            for moves in (order[:count] for count in range(len(order) + 1))
        )

    def _reading(self, page: int, arrived: list[str], moves: list[Move]) -> int:
        source, target = self._copy("s"), self._copy("d")
        target.pages[page].data = arrived
        for move in moves:
            source.do(move)
            target.do(move)
        reading = source.pages[page].read()
        if reading == target.pages[page].read():
            return RIGHT
        if len(reading) > 1:
            return NOT_PROMISED
        lost = source.unwritten[page] and not self.case.order.expects_old_bytes
        return NOT_PROMISED if lost else WRONG

    def _copy(self, key: str) -> World:
        pages = [GuestPage(key, list(it.data), it.private) for it in self._world.pages]
        world = self._world
        numbers = iter(range(1000, 2000))
        return World(pages, list(world.private), list(world.dirty), list(world.unwritten), numbers)


def by_road(data: list[str], *, firmware: bool) -> list[str]:
    """What arrives of bytes that lay so on the source."""
    return apply_key(apply_key(data, "s'"), "d") if firmware else data


def merges(programs: list[tuple[Move, ...]]) -> Iterator[list[Move]]:
    """Every order of all moves that keeps each program's own."""
    if not any(programs):
        yield []
    for vcpu, program in enumerate(programs):
        if program:
            rest = [*programs[:vcpu], program[1:], *programs[vcpu + 1 :]]
            yield from ([program[0], *others] for others in merges(rest))


def schedules(case: Case, host_moves: list[int]) -> Iterator[list[int]]:
    """Every interleaving.

    Args:
        case: the guest; it may be stopped before any of its moves.
        host_moves: the host's.
    """

    def grow(at: int, made: tuple[int, ...]) -> Iterator[list[int]]:
        if at == len(host_moves):
            yield []
        else:
            yield from ([host_moves[at], *rest] for rest in grow(at + 1, made))
        for vcpu, program in enumerate(case.programs):
            if made[vcpu] < len(program):
                then = (*made[:vcpu], made[vcpu] + 1, *made[vcpu + 1 :])
                yield from ([vcpu, *rest] for rest in grow(at, then))

    return grow(0, (0,) * len(case.programs))


def counted(protocol: Protocol, case: Case, live_rounds: int) -> Counter[int]:
    """How many runs end how."""
    found: Counter[int] = Counter()
    for start in case.starts:
        for schedule in all_schedules(protocol, case, live_rounds):
            found[Migration(protocol, case, start, live_rounds, schedule).run()] += 1
    return found


def all_schedules(protocol: Protocol, case: Case, live_rounds: int) -> Iterator[list[int]]:
    """All interleavings with all orders of visits."""
    visits = [[HOST - 1]] if case.npages == 1 else [[HOST - 1, HOST - 2], [HOST - 2, HOST - 1]]

    def choose(nth: int) -> Iterator[list[int]]:
        if nth == live_rounds:
            yield []
            return
        for order in visits:
            own = [HOST] * calls_before(protocol, nth) + order
            own += [HOST] * (protocol.clearing == Clearing.AFTER_READING)
            yield from ([*own, *rest] for rest in choose(nth + 1))

    for moves in choose(0):
        yield from schedules(case, moves)


def calls_before(protocol: Protocol, nth: int) -> int:
    """How many ioctls a sync makes before pages are read."""
    asks = not (protocol.asks_once and nth)
    clears = protocol.clearing in {Clearing.WHEN_MERGED, Clearing.BEFORE_READING}
    return 1 + asks + clears
