"""A process whose memory is looked at: maps what it is told to, and fills it as it is told.

Run as ``child.py KIND NPAGES [FILE]``. It prints the address, then does what each line of its input
says and answers with a line: ``write PAGE VALUE``, ``pageout``, ``drop PAGE``, ``unreadable PAGE``,
``nobody`` (give up all privileges), ``nothing``.
A page is written wholly, so that it is zero after ``write PAGE 0``, but there.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import sys

PAGE = mmap.PAGESIZE
_MADV_PAGEOUT = 21
_PR_SET_DUMPABLE = 4
_NOBODY = 65534
_HUGE_ANONYMOUS = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x40000  # MAP_HUGETLB


def mapped(kind: str, nbytes: int, path: str | None) -> mmap.mmap:
    if kind == "anonymous":
        return mmap.mmap(-1, nbytes, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if kind == "shared anonymous":
        return mmap.mmap(-1, nbytes, mmap.MAP_SHARED | mmap.MAP_ANONYMOUS)
    if kind == "huge anonymous":
        return mmap.mmap(-1, nbytes, _HUGE_ANONYMOUS)
    if path is None:
        fd = os.memfd_create("guest", os.MFD_HUGETLB if kind.startswith("huge") else 0)
    else:
        fd = os.open(path, os.O_RDWR)
    if os.fstat(fd).st_size < nbytes:
        os.ftruncate(fd, nbytes)
    shared = kind.endswith("shared")
    return mmap.mmap(fd, nbytes, mmap.MAP_SHARED if shared else mmap.MAP_PRIVATE)


def main() -> None:
    kind, npages, *path = sys.argv[1:]
    area = mapped(kind, int(npages) * PAGE, path[0] if path else None)
    if not kind.startswith("huge"):
        area.madvise(mmap.MADV_NOHUGEPAGE)  # else one write makes 512 pages
    libc = ctypes.CDLL(None)
    address = ctypes.addressof(ctypes.c_char.from_buffer(area))
    print(address, flush=True)
    for line in sys.stdin:
        command, *numbers = line.split()
        page, value = [*map(int, numbers), 0, 0][:2]
        if command == "write":
            area[page * PAGE : (page + 1) * PAGE] = bytes([value]) * PAGE
        elif command == "pageout":
            area.madvise(_MADV_PAGEOUT)
        elif command == "drop":
            area.madvise(mmap.MADV_DONTNEED, page * PAGE, PAGE)
        elif command == "unreadable":
            assert not libc.mprotect(ctypes.c_void_p(address + page * PAGE), PAGE, 0)
        elif command == "nobody":
            os.setgid(_NOBODY)
            os.setuid(_NOBODY)
            libc.prctl(_PR_SET_DUMPABLE, 1)  # else root alone may look into it from now on
        print("done", flush=True)


if __name__ == "__main__":
    main()
