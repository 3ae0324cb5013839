"""KVM by bytes: raw request numbers and packed structs, on the fake or on the real /dev/kvm.

Nothing here comes from kvmenc or from fakekvm's decoder: it is a third opinion on the layouts.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import struct
from typing import TYPE_CHECKING, Protocol, Self

import numpy as np

from fakekvm import Kernel, guests

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from fakekvm import Host

PAGE = 4096
_MAP_NORESERVE = 0x4000  # in the module mmap since Python 3.12

GET_API_VERSION = 0xAE00
CREATE_VM = 0xAE01
CHECK_EXTENSION = 0xAE03
GET_VCPU_MMAP_SIZE = 0xAE04
GET_SUPPORTED_CPUID = 0xC008AE05
CREATE_VCPU = 0xAE41
GET_DIRTY_LOG = 0x4010AE42
SET_REGION = 0x4020AE46
SET_TSS_ADDR = 0xAE47
SET_IDENTITY_MAP_ADDR = 0x4008AE48
SET_REGION2 = 0x40A0AE49
RUN = 0xAE80
GET_REGS = 0x8090AE81
SET_REGS = 0x4090AE82
GET_SREGS = 0x8138AE83
SET_SREGS = 0x4138AE84
SET_SIGNAL_MASK = 0x4004AE8B
ENABLE_CAP = 0x4068AEA3
MEMORY_ENCRYPT_OP = 0xC008AEBA
REG_REGION, UNREG_REGION = 0x8010AEBB, 0x8010AEBC
CLEAR_DIRTY_LOG = 0xC018AEC0
RESET_RINGS = 0xAEC7
SET_ATTRIBUTES = 0x4020AED2
CREATE_GUEST_MEMFD = 0xC040AED4

LOG, READONLY, GUEST_MEMFD = 1, 2, 4
CAP_MANUAL, CAP_RING, CAP_RING_ACQ_REL, CAP_HYPERCALL = 168, 192, 223, 201

Result = int | str


class Buffer:
    """Memory at a fixed address."""

    def __init__(self, content: bytes) -> None:
        self._data = ctypes.create_string_buffer(content, max(len(content), 1))
        self.address = ctypes.addressof(self._data)
        self.size = len(content)

    def put(self, at: int, content: bytes) -> None:
        """Store bytes from its byte ``at`` on."""
        ctypes.memmove(self.address + at, content, len(content))

    @property
    def bytes(self) -> bytes:
        return self._data.raw[: self.size]

    def words(self) -> NDArray[np.uint64]:
        return np.frombuffer(self.bytes, "<u8")


Argument = int | Buffer


def _address(arg: Argument) -> int:
    return arg if isinstance(arg, int) else arg.address


class Area:
    """Page-aligned memory, for guests."""

    def __init__(self, npages: int) -> None:
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE
        self.map = mmap.mmap(-1, npages * PAGE, flags=flags)
        self._pin = ctypes.c_char.from_buffer(self.map)
        self.address = ctypes.addressof(self._pin)

    def word(self, page: int) -> int:
        """The first 8 bytes of a page."""
        return int.from_bytes(self.map[page * PAGE : page * PAGE + 8], "little")

    def unmap(self, first: int, npages: int) -> None:
        """Leave a hole, whose address is surely bad."""
        _libc.munmap(self.address + first * PAGE, npages * PAGE)


_libc = ctypes.CDLL(None, use_errno=True)
_libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_ioctl = _libc.ioctl
_ioctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong)


class Machine(Protocol):
    """Either KVM. Results are numbers, or the names of errnos."""

    def open(self) -> int: ...
    def ioctl(self, fd: int, request: int, arg: Argument = 0) -> Result: ...
    def close(self, fd: int) -> None: ...
    def run_writes(self, guest: Guest, pages: Sequence[int]) -> Result: ...


class FakeMachine:
    """fakekvm."""

    def __init__(self, host: Host | None = None) -> None:
        self.kernel = Kernel(host)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.kernel.__exit__()

    def open(self) -> int:
        return self.kernel.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC)

    def ioctl(self, fd: int, request: int, arg: Argument = 0) -> Result:
        try:
            return self.kernel.ioctl(fd, request, _address(arg))
        except OSError as error:
            return errno.errorcode[error.errno or 0]

    def close(self, fd: int) -> None:
        self.kernel.close(fd)

    def run_writes(self, guest: Guest, pages: Sequence[int]) -> Result:
        script = [guests.WritePages(np.array([page]), n + 1) for n, page in enumerate(pages)]
        self.kernel.load_guest(guest.vm, 0, script)
        return self.ioctl(guest.vcpu, RUN)


class RealMachine:
    """The kernel of this machine. Closes what was opened."""

    def __init__(self) -> None:
        self._open: set[int] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        for fd in self._open:
            os.close(fd)

    def open(self) -> int:
        fd = os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC)
        self._open.add(fd)
        return fd

    def ioctl(self, fd: int, request: int, arg: Argument = 0) -> Result:
        result: int = _ioctl(fd, request, _address(arg))
        if result < 0:
            return errno.errorcode[ctypes.get_errno()]
        if request in (CREATE_VM, CREATE_VCPU, CREATE_GUEST_MEMFD):
            self._open.add(result)
        return result

    def close(self, fd: int) -> None:
        self._open.remove(fd)
        os.close(fd)

    def run_writes(self, guest: Guest, pages: Sequence[int]) -> Result:
        """Runs real-mode code in page 1: one byte into each page, then a halt."""
        code = b"".join(
            b"\xb8" + struct.pack("<H", page * PAGE >> 4) + b"\x8e\xd8\xc6\x06\0\0" + bytes([n + 1])
            for n, page in enumerate(pages)
        )
        guest.area.map[PAGE : PAGE + len(code) + 1] = code + b"\xf4"
        sregs = Buffer(bytes(0x138))
        self.ioctl(guest.vcpu, GET_SREGS, sregs)
        flat = bytearray(sregs.bytes)
        flat[0:8], flat[12:14] = bytes(8), bytes(2)  # cs: base and selector
        self.ioctl(guest.vcpu, SET_SREGS, Buffer(bytes(flat)))
        registers = struct.pack("<18Q", *[0] * 16, PAGE, 2)
        self.ioctl(guest.vcpu, SET_REGS, Buffer(registers))
        return self.ioctl(guest.vcpu, RUN)


class Guest:
    """A VM with one vCPU and one memslot, on either machine."""

    def __init__(
        self,
        machine: Machine,
        npages: int = 100,
        flags: int = LOG,
        manual: int = 0,
        ring_bytes: int = 0,
    ) -> None:
        self.machine = machine
        self.area = Area(npages)
        self.npages = npages
        self.ring_bytes = ring_bytes
        self.vm = new_vm(machine)
        if manual:
            assert self.enable(CAP_MANUAL, manual) == 0
        if ring_bytes:
            assert self.enable(CAP_RING, ring_bytes) == 0
        assert self.region(flags=flags) == 0
        self.vcpu = number(machine.ioctl(self.vm, CREATE_VCPU, 0))
        self.run_area = mmap.mmap(self.vcpu, 3 * PAGE)
        self.ring = map_ring(self.vcpu, ring_bytes) if ring_bytes else None

    def enable(self, cap: int, arg: int, flags: int = 0) -> Result:
        return self.machine.ioctl(self.vm, ENABLE_CAP, enable_cap(cap, arg, flags))

    def region(
        self,
        slot: int = 0,
        flags: int = LOG,
        gfn: int = 0,
        npages: int | None = None,
        page: int = 0,
    ) -> Result:
        size = (self.npages if npages is None else npages) * PAGE
        address = self.area.address + page * PAGE
        argument = region(slot, flags, gfn * PAGE, size, address)
        return self.machine.ioctl(self.vm, SET_REGION, argument)

    def write(self, pages: Sequence[int]) -> Result:
        return self.machine.run_writes(self, pages)

    def exit_reason(self) -> int:
        return int.from_bytes(self.run_area[8:12], "little")

    def get_log(self, slot: int = 0, address: int | None = None) -> Result:
        """The dirty pages as text, or an errno."""
        out = Buffer(b"\xff" * ((self.npages + 63) // 64 * 8))
        argument = dirty_log(slot, out.address if address is None else address)
        result = self.machine.ioctl(self.vm, GET_DIRTY_LOG, argument)
        return str(pages_of(out.words())) if result == 0 else result

    def clear_log(
        self, npages: int, first: int, bitmap: int | bytes = b"\xff" * 4096, slot: int = 0
    ) -> Result:
        buffer = Buffer(bitmap if isinstance(bitmap, bytes) else b"")
        address = bitmap if isinstance(bitmap, int) else buffer.address
        argument = Buffer(struct.pack("<IIQQ", slot, npages, first, address))
        return self.machine.ioctl(self.vm, CLEAR_DIRTY_LOG, argument)

    def entries(self) -> list[tuple[int, int, int]]:
        assert self.ring is not None
        return ring_entries(self.ring)

    def harvest(self, indices: Sequence[int], flags: int = 2) -> None:
        assert self.ring is not None
        harvest(self.ring, indices, flags)


def map_ring(vcpu: int, ring_bytes: int) -> mmap.mmap:
    return mmap.mmap(vcpu, ring_bytes, offset=64 * PAGE)


def ring_entries(ring: mmap.mmap) -> list[tuple[int, int, int]]:
    """The ring as it is: flags, slot, offset."""
    return [(flags, slot, offset) for flags, slot, offset in struct.iter_unpack("<IIQ", ring[:])]


def harvest(ring: mmap.mmap, indices: Sequence[int], flags: int = 2) -> None:
    for index in indices:
        struct.pack_into("<I", ring, 16 * index, flags)


def number(result: Result) -> int:
    """A result that must not be an errno."""
    assert isinstance(result, int), result
    return result


def new_vm(machine: Machine, vm_type: int = 0) -> int:
    return number(machine.ioctl(machine.open(), CREATE_VM, vm_type))


def region(slot: int, flags: int, gpa: int, size: int, address: int) -> Buffer:
    return Buffer(struct.pack("<IIQQQ", slot, flags, gpa, size, address))


def region2(
    slot: int, flags: int, gpa: int, size: int, address: int, offset: int = 0, memfd: int = 0
) -> Buffer:
    packed = struct.pack("<IIQQQQII", slot, flags, gpa, size, address, offset, memfd, 0)
    return Buffer(packed + bytes(14 * 8))


def dirty_log(slot: int, address: int) -> Buffer:
    return Buffer(struct.pack("<IIQ", slot, 0, address))


def enable_cap(cap: int, arg: int, flags: int = 0) -> Buffer:
    return Buffer(struct.pack("<II4Q64x", cap, flags, arg, 0, 0, 0))


def guest_memfd(size: int, flags: int = 0) -> Buffer:
    return Buffer(struct.pack("<QQ6Q", size, flags, *[0] * 6))


def pages_of(words: NDArray[np.uint64]) -> list[int]:
    """The bits that are set, the slow way."""
    value = int.from_bytes(words.tobytes(), "little")
    return [bit for bit in range(words.size * 64) if value >> bit & 1]
