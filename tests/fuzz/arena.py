"""Memory that calls of the fake kernel may be pointed at: whatever they write, it ends there.

The fake writes into its caller, which is this process: an address by chance could be anything's.
"""

from __future__ import annotations

import ctypes
import mmap
from typing import TYPE_CHECKING, Self

from tests.fakekvm.raw import PAGE

if TYPE_CHECKING:
    import random

__all__ = ["NPAGES", "Arena", "Part"]

NPAGES = 40
#: On both sides; no command is allowed to write more at once.
_GUARD_BYTES = 32 << 20

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long)
_libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


class Part:
    """Some of its pages, as ``raw.Area`` is."""

    def __init__(self, address: int, npages: int) -> None:
        self.address = address
        self.map = memoryview((ctypes.c_char * (npages * PAGE)).from_address(address)).cast("B")


class Arena(Part):
    """Pages between two stretches that nobody may touch; a context manager."""

    def __init__(self) -> None:
        self._size = 2 * _GUARD_BYTES + NPAGES * PAGE
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000  # MAP_NORESERVE
        self._start = _libc.mmap(None, self._size, 0, flags, -1, 0)
        address = self._start + _GUARD_BYTES
        assert _libc.mprotect(address, NPAGES * PAGE, mmap.PROT_READ | mmap.PROT_WRITE) == 0
        super().__init__(address, NPAGES)
        self._template = bytes(NPAGES * PAGE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.map.release()
        _libc.munmap(self._start, self._size)

    def keep(self) -> None:
        """What is in it now is what it begins each input with."""
        self._template = self.content

    def begin(self) -> None:
        """As it was kept."""
        ctypes.memmove(self.address, self._template, len(self._template))

    @property
    def content(self) -> bytes:
        """All of it."""
        return ctypes.string_at(self.address, NPAGES * PAGE)

    def changed(self, since: bytes | None = None) -> list[int]:
        """The pages that are not as they were then; without a time, as they were kept."""
        now, then = self.content, self._template if since is None else since
        if now == then:
            return []
        pages = range(0, len(now), PAGE)
        return [at // PAGE for at in pages if now[at : at + PAGE] != then[at : at + PAGE]]

    def page(self, number: int) -> int:
        """Its address."""
        return self.address + number * PAGE

    def put(self, at: int, content: bytes) -> None:
        """Store at an offset."""
        self.map[at : at + len(content)] = content

    def at(self, address: int, size: int) -> bytes | None:
        """What is there; None: not all of it is here."""
        start = address - self.address
        return bytes(self.map[start : start + size]) if self.holds(address, size) else None

    def holds(self, address: int, size: int) -> bool:
        """All of it is here."""
        return self.address <= address and address + size <= self.address + NPAGES * PAGE

    def somewhere(self, rng: random.Random, first: int = 0) -> int:
        """An address: within, from a page on; at its ends; or where nothing ever is."""
        inside = self.page(rng.randrange(first, NPAGES)) + rng.choice((0, 0, 1, 16, 4080, 4095))
        end = self.page(NPAGES)
        outside = rng.choice((0, 1, 8, end, end - 1, end - 16, end + PAGE, self._start, *WILD))
        return rng.choice((inside, outside))


#: No process has anything there (x86-64, Documentation/arch/x86/x86_64/mm.rst).
WILD = (1 << 47, (1 << 47) + 7, 1 << 63, 2**64 - 8192)
