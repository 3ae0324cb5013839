"""A small VMM that knows nothing of what answers it, in plain Python: fcntl, and no package.

"vmm.py WHAT" does one thing and checks it.
"""

from __future__ import annotations

import array
import errno
import fcntl
import mmap
import os
import stat
import struct
import sys
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

PAGES, PAGE = 512, 4096


def aligned(size: int) -> tuple[array.array[int], int]:
    """Memory of our own, from a page's beginning on: an array, and where in it that is."""
    memory = array.array("B", bytes(size + PAGE))
    address = memory.buffer_info()[0]
    return memory, -address % PAGE


def errno_of(call: Callable[[], object]) -> int | None:
    try:
        call()
    except OSError as error:
        return error.errno
    return 0


def whole_life() -> None:
    kvm = os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC)
    vm = fcntl.ioctl(kvm, 0xAE01, 0)
    memory, first = aligned(PAGES * PAGE)
    address = memory.buffer_info()[0] + first
    fcntl.ioctl(vm, 0x4020AE46, struct.pack("<IIQQQ", 3, 1, 0, PAGES * PAGE, address))
    vcpu = fcntl.ioctl(vm, 0xAE41, 0)
    run = mmap.mmap(vcpu, fcntl.ioctl(kvm, 0xAE04, 0))
    fcntl.ioctl(vcpu, 0xAE80, 0)
    assert struct.unpack_from("<I", run, 8) == (5,), "KVM_EXIT_HLT"
    bitmap = array.array("B", bytes(PAGES // 8))
    fcntl.ioctl(vm, 0x4010AE42, struct.pack("<IIQ", 3, 0, bitmap.buffer_info()[0]))
    dirty = {page for page in range(PAGES) if bitmap[page // 8] >> page % 8 & 1}
    start = [first + page * PAGE for page in range(PAGES)]
    written = {page for page in range(PAGES) if any(memory[start[page] : start[page] + PAGE])}
    assert dirty == written, (dirty, written)
    assert len(dirty) > 30
    print(len(dirty))


def unknown() -> None:
    kvm = os.open("/dev/kvm", os.O_RDWR)
    vm = fcntl.ioctl(kvm, 0xAE01, 0)
    for _ in range(3):
        assert errno_of(lambda: fcntl.ioctl(vm, 0xAEFE, 0)) == errno.ENOTTY
    other = os.open("/dev/null", os.O_RDONLY)
    assert errno_of(lambda: fcntl.ioctl(other, 0xAE03, 0)) == errno.ENOTTY
    assert errno_of(lambda: fcntl.ioctl(999, 0xAE03, 0)) == errno.EBADF


def names(folder: str) -> list[tuple[str, int | None]]:
    """Ways to name /dev/kvm, and what each starts at. They need a folder for links."""
    os.chdir("/usr")
    os.symlink("/dev/kvm", folder + "/link")
    os.symlink("link", folder + "/again")
    os.symlink("/dev/kvm", folder + "/kvm")
    os.symlink("/dev", folder + "/folder")
    dev, links = os.open("/dev", os.O_RDONLY), os.open(folder, os.O_RDONLY)
    plain = ["/dev/kvm", "../dev/./kvm", "/dev/../dev//kvm", folder + "/link", folder + "/again"]
    by_folder = [("kvm", dev), ("link", links), ("kvm", links), ("folder/kvm", links)]
    return [*((name, None) for name in plain), (folder + "/folder/kvm", None), *by_folder]


def looks() -> None:
    """By every way to look, and every way to name it."""
    for name, dir_fd in names(sys.argv[2]):
        status = os.stat(name, dir_fd=dir_fd)
        assert stat.S_ISCHR(status.st_mode), (name, status)
        assert status.st_rdev == os.makedev(10, 232), (name, status)
        assert os.access(name, os.R_OK | os.W_OK, dir_fd=dir_fd), name
        fd = os.open(name, os.O_RDWR, dir_fd=dir_fd)
        assert fcntl.ioctl(fd, 0xAE00, 0) == 12
        os.close(fd)
    for name in ("/dev/kvm", sys.argv[2] + "/folder/kvm"):
        assert stat.S_ISCHR(os.lstat(name).st_mode)
    assert stat.S_ISLNK(os.lstat(sys.argv[2] + "/link").st_mode)
    assert os.path.realpath("/dev/kvm") == "/dev/kvm"
    assert os.access("/dev/kvm", os.R_OK | os.W_OK)
    assert not os.access("/dev/kvm", os.X_OK)
    assert errno_of(lambda: os.open("/dev/kvm", os.O_CREAT | os.O_EXCL)) == errno.EEXIST
    assert errno_of(lambda: os.open("/dev/kvm", os.O_DIRECTORY)) == errno.ENOTDIR
    assert errno_of(lambda: os.open("/dev/kvm/", os.O_RDONLY)) in (errno.ENOTDIR, errno.ENOENT)
    assert os.read(os.open("/dev/null", os.O_RDONLY), 1) == b""
    assert not os.path.exists("/dev/kvm2")
    fd = os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC)
    assert not os.get_inheritable(fd)


def tell(name: str, call: Callable[[], object]) -> None:
    print(name, errno.errorcode.get(errno_of(call) or 0, "works"))


def refused() -> None:
    """Prints what opening, looking and asking fail with."""
    for name, dir_fd in names(sys.argv[2]):
        tell("stat", partial(os.stat, name, dir_fd=dir_fd))
        tell("open", partial(os.open, name, os.O_RDWR, dir_fd=dir_fd))
    tell("stat", lambda: os.lstat(sys.argv[2] + "/folder/kvm"))
    tell("sev", lambda: os.open("/dev/sev", os.O_RDWR))
    print("access", os.access("/dev/kvm", os.R_OK))


def guest_memfd() -> None:
    """The descriptor in an argument is looked up in the program's own table."""
    kvm = os.open("/dev/kvm", os.O_RDWR)
    vm = fcntl.ioctl(kvm, 0xAE01, 0)
    memfd = fcntl.ioctl(vm, 0xC040AED4, bytearray(struct.pack("<8Q", PAGE, *[0] * 7)))
    null = os.open("/dev/null", os.O_RDONLY)
    assert set_region2(vm, 999) == errno.EBADF
    assert set_region2(vm, null) == errno.EINVAL
    assert set_region2(vm, os.dup(memfd)) == 0


def set_region2(vm: int, memfd: int) -> int | None:
    region = struct.pack("<IIQQQQI4x112x", 0, 4, 0, PAGE, 1 << 30, 0, memfd)
    return errno_of(lambda: fcntl.ioctl(vm, 0x40A0AE49, region))


def sev() -> None:
    """A VM that nobody holds any more gives its place in the firmware back."""
    kvm, device = os.open("/dev/kvm", os.O_RDWR), os.open("/dev/sev", os.O_RDWR)

    def guests() -> int:
        status = array.array("B", bytes(12))
        command = struct.pack("<IQI", 1, status.buffer_info()[0], 0)
        fcntl.ioctl(device, 0xC0105300, command)
        return int(struct.unpack_from("<I", status, 8)[0])

    vm = fcntl.ioctl(kvm, 0xAE01, 0)
    start = array.array("B", bytes(40))
    for number, data, sev_fd in ((0, 0, device), (2, start.buffer_info()[0], device)):
        fcntl.ioctl(vm, 0xC008AEBA, bytearray(struct.pack("<IIQII", number, 0, data, 0, sev_fd)))
    assert guests() == 1
    copy = os.dup(vm)
    os.close(vm)
    assert guests() == 1
    os.close(copy)
    assert guests() == 0


if __name__ == "__main__":
    DOES = {"whole-life": whole_life, "unknown": unknown, "looks": looks, "refused": refused}
    DOES |= {"guest-memfd": guest_memfd, "sev": sev}
    DOES[sys.argv[1]]()
