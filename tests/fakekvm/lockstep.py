"""Two KVMs in lock step: what is done to one is done to the other, and what comes of it compared.

One is the fake, the other the kernel. Descriptors and addresses differ between them, so a call
names handles and says how its argument is made on either side. Results, errnos, bytes that came to
lie in a buffer or beside it, what a vCPU's pages say and what a guest wrote must be the same.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import struct
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Self

import numpy as np
import pytest

from fakekvm import Host
from fakekvm.guests import WritePages
from fakekvm.vcpu import Vcpu as FakeVcpu
from tests.fakekvm import known_differences as known
from tests.fakekvm import raw
from tests.fakekvm.raw import PAGE, Area, Buffer, FakeMachine, RealMachine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from tests.fakekvm.raw import Machine, Result

GUARD = 64
CANARY = 0xA5
AREA_PAGES = 256
CODE_GFN = 0xF0  # the highest that real-mode code needs for programs of a page
CODE_SLOT = 7  # which the tests' calls leave alone
MAX_WRITES = 250

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long)
_libc.mmap.restype = ctypes.c_void_p
_libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_FAILED = (1 << 64) - 1


def host_like_this_one() -> Host:
    """A fake host with the capabilities of this machine's KVM, and its CPU's ways with rings."""
    with RealMachine() as machine:
        kvm = machine.open()
        values = {n: machine.ioctl(kvm, raw.CHECK_EXTENSION, n) for n in range(300)}
        # CPUs with a page log of their own need room for it in the ring.
        small = machine.ioctl(raw.new_vm(machine), raw.ENABLE_CAP, raw.enable_cap(192, PAGE))
        guest = raw.Guest(machine, ring_bytes=1 << 14)
        guest.write([5, 5])
        told = sum(flags for flags, _, _ in guest.entries())
    return replace(
        Host(),
        capabilities={n: v for n, v in values.items() if isinstance(v, int)},
        ring_reserved_entries=64 if small == 0 else 64 + 512,
        ring_logs_every_write=told == 2,
    )


class Guarded:
    """Bytes for a call, between canaries."""

    def __init__(self, content: bytes) -> None:
        guard = bytes([CANARY]) * GUARD
        self._before = guard + content + guard
        self._buffer = Buffer(self._before)
        self.address = self._buffer.address + GUARD

    def changes(self) -> list[tuple[int, int]]:
        """Which bytes were written, and what; negative before the content."""
        after = self._buffer.bytes
        if after == self._before:
            return []
        pairs = enumerate(zip(self._before, after, strict=True))
        return [(at - GUARD, new) for at, (old, new) in pairs if old != new]


class Side:
    """One of the two machines, and what its calls point to.

    Attributes:
        index: 0 is the fake, 1 the kernel.
        buffers: of the call that is being made.
    """

    def __init__(self, machine: Machine, index: int) -> None:
        self.machine = machine
        self.index = index
        self.buffers: list[Guarded] = []
        self._edge = Area(2)  # its second page is not to be touched
        _libc.mprotect(self._edge.address + PAGE, PAGE, 0)

    def put(self, content: bytes | Buffer) -> int:
        """Where a copy of this lies."""
        buffer = Guarded(content if isinstance(content, bytes) else content.bytes)
        self.buffers.append(buffer)
        return buffer.address

    def before_the_edge(self, size: int) -> int:
        """An address from which only ``size`` bytes can be read or written, all ones."""
        self._edge.map[PAGE - size : PAGE] = b"\xff" * size
        return self._edge.address + PAGE - size

    def written(self) -> list[object]:
        """What the call left in its buffers, which are forgotten."""
        edge = self._edge.map[PAGE - GUARD : PAGE]
        told: list[object] = [*(buffer.changes() for buffer in self.buffers), edge]
        self.buffers.clear()
        return told

    def load(self, vcpu: Vcpu, pages: Sequence[int], value: int) -> None:
        """Have the vCPU write ``value``, ``value + 1``, ... to these pages; then it halts."""
        if isinstance(self.machine, FakeMachine):
            file = self.machine.kernel.file_of(vcpu.handle.fds[0])
            assert isinstance(file, FakeVcpu)
            file.load(
                [WritePages(np.array([page]), _byte(value + n)) for n, page in enumerate(pages)]
            )
            return
        code = b"".join(_store(page, _byte(value + n)) for n, page in enumerate(pages))
        vcpu.vm.codes[self.index].map[: len(code) + GUARD] = code + b"\xf4" * GUARD
        self._to_real_mode(vcpu.handle.fds[self.index])

    def _to_real_mode(self, vcpu: int) -> None:
        """Not compared: the fake's vCPUs have no code, nor registers that it would change."""
        sregs = Buffer(bytes(0x138))
        self.machine.ioctl(vcpu, raw.GET_SREGS, sregs)
        changed = bytearray(sregs.bytes)
        struct.pack_into("<QIH", changed, 0, CODE_GFN * PAGE, 0xFFFF, CODE_GFN << 8)
        self.machine.ioctl(vcpu, raw.SET_SREGS, Buffer(bytes(changed)))
        self.machine.ioctl(vcpu, raw.SET_REGS, Buffer(struct.pack("<18Q", *[0] * 17, 2)))


def _byte(value: int) -> int:
    return value % 255 + 1


def _store(page: int, value: int) -> bytes:
    """Code: mov ax, segment; mov ds, ax; mov byte [0], value."""
    segment = struct.pack("<H", page * PAGE >> 4)
    return b"\xb8" + segment + b"\x8e\xd8\xc6\x06\0\0" + bytes([value])


@dataclass(slots=True, eq=False)
class Handle:
    """An open file of KVM on both sides."""

    kind: str
    fds: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Slot:
    """A memslot that both have."""

    base: int
    npages: int
    flags: int
    has_memory: bool

    def covers(self, gfn: int) -> bool:
        return self.base <= gfn < self.base + self.npages


@dataclass(slots=True, eq=False)
class Vm:
    """A VM on both sides, and what is in it."""

    handle: Handle
    areas: tuple[Area, Area] = field(default_factory=lambda: (Area(AREA_PAGES), Area(AREA_PAGES)))
    codes: tuple[Area, Area] = field(default_factory=lambda: (Area(1), Area(1)))
    vcpus: list[Vcpu] = field(default_factory=list)
    memfds: list[Handle] = field(default_factory=list)
    slots: dict[int, Slot] = field(default_factory=dict)
    ring_bytes: int = 0
    is_closed: bool = False

    def may_write(self, gfn: int) -> bool:
        """Whether this is one of the writes that are compared."""
        return not any(
            slot.covers(gfn) and known.write_is_left_out(slot.flags, slot.has_memory)
            for slot in self.slots.values()
        )


class Vcpu:
    """A vCPU on both sides, with its pages."""

    def __init__(self, handle: Handle, vm: Vm, number: int) -> None:
        self.handle = handle
        self.vm = vm
        self.number = number
        self.pages = [mmap.mmap(fd, 3 * PAGE) for fd in handle.fds]
        self.rings: list[mmap.mmap] = []
        self.first = [0, 0]  # of the ring's entries that were not reset, on either side
        self.is_fresh = True
        self.is_confused = False  # userspace took entries that were never there
        self.is_mapped = True
        if vm.ring_bytes:
            self.rings = [raw.map_ring(fd, vm.ring_bytes) for fd in handle.fds]

    def flags(self, side: int = 0) -> NDArray[np.uint32]:
        """Of the ring's entries, from the first on that was not reset."""
        words = np.frombuffer(self.rings[side][:], "<u4").reshape(-1, 4)
        return np.roll(words[:, 0], -self.first[side])

    def waiting(self, side: int = 0) -> list[int]:
        """Indices of the ring's entries that userspace may take, in order."""
        flags = self.flags(side)
        return [int(n + self.first[side]) % flags.size for n in np.flatnonzero(flags == 1)]

    def next_entries(self, count: int) -> list[int]:
        """Indices of the first entries that are not there."""
        flags = self.flags()
        return [int(n + self.first[0]) % flags.size for n in np.flatnonzero(flags == 0)[:count]]

    def room(self, reserved: int, side: int = 0) -> int:
        """How many more entries the ring takes before it counts as full."""
        flags = self.flags(side)
        return int(flags.size - reserved - np.count_nonzero(flags))

    def unmap(self) -> None:
        self.is_mapped = False
        for area in (*self.pages, *self.rings):
            area.close()


class Lockstep:
    """The fake and the kernel.

    Attributes:
        seen: how often each (file, request, answer) was given by both; numbers count as "0" or "n".
    """

    def __init__(self, host: Host) -> None:
        self._fake, self._real = FakeMachine(host), RealMachine()
        self.sides = (Side(self._fake, 0), Side(self._real, 1))
        self._reserved = host.ring_reserved_entries
        self.seen: Counter[tuple[str, str, str]] = Counter()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._fake.__exit__()
        self._real.__exit__()

    def open(self) -> Handle:
        """Open /dev/kvm."""
        fake, real = (side.machine.open() for side in self.sides)
        return Handle("system", (fake, real))

    def close(self, handle: Handle, request: int) -> None:
        """Close a file, and try a call on it."""
        for side in self.sides:
            side.machine.close(handle.fds[side.index])
            # At once: a descriptor opened in between could get the number.
            assert side.machine.ioctl(handle.fds[side.index], request) == "EBADF"
        self._count(handle.kind, "close", "EBADF")

    def ioctl(
        self, handle: Handle, request: int, argument: int | Callable[[Side], int] = 0
    ) -> Result:
        """The same call on both, which makes no file; the result."""
        fake, real = self._on_both(handle, request, argument)
        assert fake == real, f"{request:#x}: {fake}, {real}"
        self._compare_buffers(request)
        self._count(handle.kind, hex(request), str(fake))
        return fake

    def create(
        self, handle: Handle, request: int, argument: int | Callable[[Side], int], kind: str
    ) -> Handle | None:
        """A call that makes a file; None where both refuse."""
        fake, real = self._on_both(handle, request, argument)
        self._compare_buffers(request)
        made = isinstance(fake, int) and isinstance(real, int)
        self._count(handle.kind, hex(request), "0" if made else str(fake))
        if isinstance(fake, int) and isinstance(real, int):
            return Handle(kind, (fake, real))
        assert fake == real, f"{request:#x}: {fake}, {real}"
        return None

    def _on_both(
        self, handle: Handle, request: int, argument: int | Callable[[Side], int]
    ) -> tuple[Result, Result]:
        for side in self.sides:
            side.buffers.clear()
        fake, real = (
            side.machine.ioctl(
                handle.fds[side.index],
                request,
                argument if isinstance(argument, int) else argument(side),
            )
            for side in self.sides
        )
        return fake, real

    def _compare_buffers(self, request: int) -> None:
        fake, real = (side.written() for side in self.sides)
        assert fake == real, f"{request:#x}: not the same bytes"

    def _count(self, kind: str, what: str, answer: str) -> None:
        self.seen[kind, what, "n" if answer.isdigit() and answer != "0" else answer] += 1

    # -- guests -----------------------------------------------------------------------------------

    def new_vm(self, system: Handle) -> Vm:
        """A VM whose guest code has a slot already."""
        handle = self.create(system, raw.CREATE_VM, 0, "vm")
        assert handle is not None
        vm = Vm(handle)
        gpa = CODE_GFN * PAGE
        made = self.ioctl(
            handle,
            raw.SET_REGION,
            lambda side: side.put(
                raw.region(CODE_SLOT, 0, gpa, PAGE, vm.codes[side.index].address)
            ),
        )
        assert made == 0
        return vm

    def run_confused(self, vcpu: Vcpu, page: int, value: int) -> None:
        """One write, and once more into the guest: whether the ring counts as full is told then."""
        vcpu.is_fresh = False
        for side in self.sides:
            side.load(vcpu, [page], value)
            vcpu.pages[side.index][1] = 0
            for _ in range(2):  # an MMIO exit may come first
                side.machine.ioctl(vcpu.handle.fds[side.index], raw.RUN)
            side.load(vcpu, (), 0)
        self.go_on(vcpu)
        self.compare_memory(vcpu.vm)

    def run(self, vcpu: Vcpu, pages: Sequence[int], value: int, interrupts: int = 0) -> list[int]:
        """Writes to pages, up to the halt or a full ring; the exits of which it was told.

        Args:
            vcpu: which one.
            pages: gfns below ``CODE_GFN``.
            value: written to the first page; the next gets one more.
            interrupts: bit n: the n-th KVM_RUN is asked to return at once.
        """
        for side in self.sides:
            side.load(vcpu, pages, value)
        vcpu.is_fresh = False
        exits: list[int] = []
        for n in range(MAX_WRITES):
            exits.append(self.go_on(vcpu, now=bool(interrupts >> n & 1)))
            if exits[-1] in known.LAST_EXITS:
                break
        self.compare_memory(vcpu.vm)
        return exits

    def go_on(self, vcpu: Vcpu, *, now: bool = False) -> int:
        """One KVM_RUN; returns the exit reason, 0 if there was none."""
        for pages in vcpu.pages:
            pages[1] = now
        result = self.ioctl(vcpu.handle, raw.RUN)
        fake, real = (known.exit_told(result, pages[:PAGE]) for pages in vcpu.pages)
        assert fake == real, "KVM_RUN tells different exits"
        self.seen["vcpu", "exit", str(fake[1])] += 1
        return 0 if result == "EINTR" else fake[1]

    def compare_memory(self, vm: Vm) -> None:
        """What guests wrote."""
        fake, real = (area.map[:] for area in vm.areas)
        assert fake == real, "guests wrote different bytes"

    def compare_rings(self, vcpu: Vcpu) -> None:
        """The rings, byte by byte."""
        if vcpu.rings:
            fake, real = (ring[:] for ring in vcpu.rings)
            assert fake == real, "rings tell different pages"

    # -- rings ------------------------------------------------------------------------------------

    def harvest(self, vcpu: Vcpu, indices: Sequence[int], flags: int) -> None:
        """Say of these entries of both rings that they were taken."""
        for ring in vcpu.rings:
            raw.harvest(ring, indices, flags)

    def spoil(self, vcpu: Vcpu, index: int, slot: int, offset: int) -> None:
        """Write another page into an entry of both rings."""
        for ring in vcpu.rings:
            struct.pack_into("<IQ", ring, 16 * index + 4, slot, offset)

    def reset_rings(self, vm: Vm, argument: int = 0) -> None:
        """KVM_RESET_DIRTY_RINGS."""
        with _first_entries_moved(vm, (0, 1)):
            self.ioctl(vm.handle, raw.RESET_RINGS, argument)

    def run_and_drain(self, vcpu: Vcpu, pages: Sequence[int], value: int) -> None:
        """Writes that may fill the ring, which is emptied each time: what it told in all."""
        if vcpu.vm.is_closed:
            return
        vcpu.is_fresh = False
        fake, real = (self._drained(side, vcpu, pages, value) for side in self.sides)
        assert fake == real, "rings told different pages"
        self.seen["vcpu", "drained", "n" if fake else "0"] += 1
        self.compare_memory(vcpu.vm)

    def _drained(self, side: Side, vcpu: Vcpu, pages: Sequence[int], value: int) -> list[object]:
        """Each side for itself: see "past a ring's soft limit"."""
        side.load(vcpu, pages, value)
        told: list[object] = []
        taken = 0
        vcpu.pages[side.index][1] = 0
        for _ in range(MAX_WRITES):
            result = side.machine.ioctl(vcpu.handle.fds[side.index], raw.RUN)
            exit_told = known.exit_told(result, vcpu.pages[side.index][:PAGE])
            indices = vcpu.waiting(side.index)
            full = exit_told[1] == known.EXIT_RING_FULL
            assert not full or vcpu.room(self._reserved, side.index) <= 0, "full before its limit"
            entries = raw.ring_entries(vcpu.rings[side.index])
            told += [entries[index] for index in indices]
            raw.harvest(vcpu.rings[side.index], indices)
            with _first_entries_moved(vcpu.vm, (side.index,)):
                taken += raw.number(
                    side.machine.ioctl(vcpu.vm.handle.fds[side.index], raw.RESET_RINGS)
                )
            told += [] if full else [exit_told]
            if exit_told[1] == known.EXIT_HLT:
                side.load(vcpu, (), 0)  # one more entry into the guest: it finds the ring empty
                return [*told, taken, side.machine.ioctl(vcpu.handle.fds[side.index], raw.RUN)]
        pytest.fail("the guest does not come to its end")

    def map(self, handle: Handle, length: int, protection: int, flags: int, offset: int) -> Result:
        """mmap, whose pages are given back at once."""
        told = [map_file(fd, length, protection, flags, offset) for fd in handle.fds]
        assert told[0] == told[1], f"mmap: {told}"
        self._count(handle.kind, "mmap", str(told[0]))
        return told[0]

    def in_another_process(self, handle: Handle, requests: Sequence[int]) -> None:
        """These calls, without an argument, in a child."""
        answers = [_in_a_child(side, handle, requests) for side in self.sides]
        assert answers[0] == answers[1]
        for request, answer in zip(requests, answers[0].split(), strict=True):
            self._count(f"{handle.kind} of another process", hex(request), answer)


@contextmanager
def _first_entries_moved(vm: Vm, sides: Sequence[int]) -> Iterator[None]:
    """Around a reset: follow which entries of each ring were taken back."""
    rings = [(vcpu, side) for vcpu in vm.vcpus if vcpu.is_mapped for side in sides if vcpu.rings]
    before = [int(np.count_nonzero(vcpu.flags(side) & 2)) for vcpu, side in rings]
    yield
    for (vcpu, side), harvested in zip(rings, before, strict=True):
        left = int(np.count_nonzero(vcpu.flags(side) & 2))
        size = vm.ring_bytes // 16
        vcpu.first[side] = (vcpu.first[side] + harvested - left) % size


def map_file(fd: int, length: int, protection: int, flags: int, offset: int) -> Result:
    """Map a file, and unmap it again; 0 or an errno."""
    address = _libc.mmap(None, length, protection, flags, fd, offset)
    if address == _FAILED:
        return errno.errorcode[ctypes.get_errno()]
    _libc.munmap(address, length)
    return 0


def _in_a_child(side: Side, handle: Handle, requests: Sequence[int]) -> str:
    readable, writable = os.pipe()
    child = os.fork()
    if child == 0:
        fd = handle.fds[side.index]
        answers = " ".join(str(side.machine.ioctl(fd, request)) for request in requests)
        os.write(writable, answers.encode())
        os._exit(0)
    os.close(writable)
    with os.fdopen(readable) as pipe:
        answers = pipe.read()
    os.waitpid(child, 0)
    return answers
