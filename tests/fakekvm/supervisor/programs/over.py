"""A VMM on a real KVM with something laid over it, in plain Python: fcntl, and no package.

"over.py WHAT" does one thing and checks it. Its guest runs in real mode, and announces by port.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import struct
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

PAGES, PAGE = 64, 4096
ALL = (1 << PAGES) - 1
PORT = 0x99
GET_ENC, SET_ENC = 0x4018AEC2, 0x4018AEC3
CODE = 0x1000


def address_of(buffer: mmap.mmap | bytearray) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(buffer))


def announcing(gfn: int, pages: int, attributes: int) -> bytes:
    """Machine code; 66 makes operands 32 bits wide."""
    values = zip((0xBB, 0xB9, 0xBA), (gfn * PAGE, pages, attributes), strict=True)
    return b"".join(b"\x66%c" % op + struct.pack("<I", value) for op, value in values) + b"\xe6\x99"


def writing(gfn: int) -> bytes:
    return b"\xa2" + struct.pack("<H", gfn * PAGE)


HALT = b"\xf4"


class Vm:
    """One vCPU, 64 pages."""

    def __init__(self, code: bytes) -> None:
        self.kvm = os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC)
        self.fd = fcntl.ioctl(self.kvm, 0xAE01, 0)
        self.memory = mmap.mmap(-1, PAGES * PAGE)
        self.memory[CODE : CODE + len(code)] = code
        region = struct.pack("<IIQQQ", 0, 1, 0, PAGES * PAGE, address_of(self.memory))
        fcntl.ioctl(self.fd, 0x4020AE46, region)
        self.vcpu = fcntl.ioctl(self.fd, 0xAE41, 0)
        self.area = mmap.mmap(self.vcpu, fcntl.ioctl(self.kvm, 0xAE04, 0))
        sregs = bytearray(312)
        fcntl.ioctl(self.vcpu, 0x8138AE83, sregs)
        struct.pack_into("<Q", sregs, 0, 0)  # cs: base and selector
        struct.pack_into("<H", sregs, 12, 0)
        fcntl.ioctl(self.vcpu, 0x4138AE84, sregs)
        fcntl.ioctl(self.vcpu, 0x4090AE82, struct.pack("<18Q", *[0] * 16, CODE, 2))

    def run(self) -> int:
        fcntl.ioctl(self.vcpu, 0xAE80, 0)
        return int(struct.unpack_from("<I", self.area, 8)[0])

    def bitmap(self, request: int, form: str, *fields: int) -> int:
        bits = bytearray(PAGES // 8)
        fcntl.ioctl(self.fd, request, struct.pack(form, *fields, address_of(bits)))
        return int.from_bytes(bits, "little")

    def private(self) -> int:
        return self.bitmap(GET_ENC, "<QQQ", 0, PAGES)

    def dirty(self) -> int:
        return self.bitmap(0x4010AE42, "<IIQ", 0, 0)

    def close(self) -> None:
        self.area.close()
        os.close(self.vcpu)
        os.close(self.fd)
        os.close(self.kvm)


def span(gfn: int, pages: int) -> int:
    return (1 << pages) - 1 << gfn


def errno_of(call: Callable[[], object]) -> int:
    try:
        call()
    except OSError as error:
        return error.errno or -1
    return 0


def flips() -> None:
    """The same announcement twice is two; each counts from its exit on, and no earlier."""
    code = announcing(8, 3, 0) + writing(10) + announcing(9, 1, 16) + announcing(9, 1, 16)
    vm = Vm(code + writing(12) + announcing(9, 1, 0) + HALT)
    assert vm.private() == ALL
    assert vm.run() == 2
    first = ALL & ~span(8, 3)
    assert vm.private() == first
    assert vm.dirty() == 0
    assert vm.run() == 2
    assert vm.private() == first | span(9, 1)
    assert vm.dirty() == span(10, 1)
    # Set back by the host in between: an announcement that was taken is not taken again.
    none = bytearray(PAGES // 8)
    fcntl.ioctl(vm.fd, SET_ENC, struct.pack("<QQQ", 0, PAGES, address_of(none)))
    assert vm.private() == 0
    assert vm.run() == 2
    assert vm.private() == span(9, 1)
    assert vm.run() == 2
    assert vm.run() == 5
    assert vm.private() == 0
    assert vm.dirty() == span(12, 1)


def not_looked_at() -> None:
    """Without a port announcements are the program's own business."""
    vm = Vm(announcing(8, 3, 0) + HALT)
    assert (vm.run(), vm.run()) == (2, 5)
    assert vm.private() == ALL


def two_vms() -> None:
    """Two vCPUs of one id: each flips its own VM's pages; dup and close change nothing."""
    one, two = Vm(announcing(1, 1, 0) + HALT), Vm(announcing(2, 2, 0) + HALT)
    copy = os.dup(two.vcpu)
    os.close(two.vcpu)
    two.vcpu = copy
    for vm in (two, one):
        assert (vm.run(), vm.run()) == (2, 5)
    assert one.private() == ALL & ~span(1, 1)
    assert two.private() == ALL & ~span(2, 2)
    one.close()
    three = Vm(HALT)
    assert three.fd == one.fd, "the number is used again"
    assert three.private() == ALL
    assert two.private() == ALL & ~span(2, 2)


def processes() -> None:
    """A VM serves the process that made it, and it goes when that has closed it."""
    vm = Vm(announcing(1, 1, 0) + HALT)
    assert vm.run() == 2
    pid = os.fork()
    if pid == 0:
        os._exit(errno_of(vm.private))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == errno.EIO
    assert vm.private() == ALL & ~span(1, 1)
    assert errno_of(lambda: fcntl.ioctl(vm.fd, GET_ENC, 0)) == errno.EFAULT
    assert errno_of(lambda: fcntl.ioctl(vm.vcpu, GET_ENC, 0)) == errno.EINVAL
    assert errno_of(lambda: fcntl.ioctl(vm.fd, 0xAEFE, 0)) == errno.ENOTTY
    os.execv(sys.executable, [sys.executable, "-S", "-E", __file__, "flips"])


class Guest:
    """A default VM that becomes an SEV guest."""

    def __init__(self) -> None:
        self.vm = Vm(HALT)
        self.sev = os.open("/dev/sev", os.O_RDWR)

    def issue(self, number: int, data: bytearray | None = None) -> None:
        address = address_of(data) if data else 0
        command = bytearray(struct.pack("<IIQII", number, 0, address, 0, self.sev))
        fcntl.ioctl(self.vm.fd, 0xC008AEBA, command)

    def packet(self, hdr: bytearray, trans: bytearray, gfn: int) -> bytearray:
        page = address_of(self.vm.memory) + gfn * PAGE
        parts = (address_of(hdr), len(hdr), page, PAGE, address_of(trans), PAGE)
        return bytearray(struct.pack("<QI4xQI4xQI4x", *parts))


def certificates(sev: int) -> tuple[bytearray, bytearray]:
    pdh, chain = bytearray(2084), bytearray(3 * 2084)
    export = bytearray(
        struct.pack("<QIQI", address_of(pdh), len(pdh), address_of(chain), len(chain))
    )
    fcntl.ioctl(sev, 0xC0105300, bytearray(struct.pack("<IQI", 5, address_of(export), 0)))
    return pdh, chain


def init_without_vcpu() -> Guest:
    """KVM_SEV_INIT has to come before the first vCPU."""
    late = Guest()
    assert errno_of(lambda: late.issue(0)) == errno.EINVAL
    guest = Guest.__new__(Guest)
    guest.sev = late.sev
    guest.vm = Vm.__new__(Vm)
    guest.vm.fd = fcntl.ioctl(late.vm.kvm, 0xAE01, 0)
    guest.vm.memory = mmap.mmap(-1, PAGES * PAGE)
    guest.issue(0)
    return guest


def sev() -> None:
    """A page of one guest is sent to another; in memory it is clear, on its way it is not."""
    source, target = init_without_vcpu(), init_without_vcpu()
    content = bytes(range(256)) * 16
    source.vm.memory[3 * PAGE : 4 * PAGE] = content
    page = address_of(source.vm.memory) + 3 * PAGE
    source.issue(2, bytearray(struct.pack("<IIQI4xQI4x", 0, 0, 0, 0, 0, 0)))
    source.issue(3, bytearray(struct.pack("<QI4x", page, PAGE)))
    measured = bytearray(48)
    source.issue(6, bytearray(struct.pack("<QI4x", address_of(measured), 48)))
    source.issue(7)
    assert source.vm.memory[3 * PAGE : 4 * PAGE] == content
    (pdh, chain), session = certificates(source.sev), bytearray(128)
    amd = bytearray(open(sys.argv[2], "rb").read())  # noqa: SIM115 - no package
    pairs = [it for blob in (pdh, chain, amd, session) for it in (address_of(blob), len(blob))]
    source.issue(8, bytearray(struct.pack("<I4x" + "QI4x" * 4, 0, *pairs)))
    hdr, trans = bytearray(52), bytearray(PAGE)
    source.issue(9, source.packet(hdr, trans, 3))
    assert bytes(trans) != content
    start = (0, 0, address_of(pdh), len(pdh), address_of(session), len(session))
    target.issue(12, bytearray(struct.pack("<IIQI4xQI4x", *start)))
    target.issue(13, target.packet(hdr, trans, 5))
    target.issue(15)
    assert target.vm.memory[5 * PAGE : 6 * PAGE] == content


if __name__ == "__main__":
    DOES = {"flips": flips, "not-looked-at": not_looked_at, "two-vms": two_vms}
    DOES |= {"processes": processes, "sev": sev}
    DOES[sys.argv[1]]()
