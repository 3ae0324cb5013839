"""guest_memfd: memory that only the guest sees. Source: Linux v6.12, virt/kvm/guest_memfd.c."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from fakekvm.calls import File, Services
from fakekvm.errors import oserror

if TYPE_CHECKING:
    from fakekvm.decode import MemoryRegion
    from fakekvm.vm import Vm

__all__ = ["GuestMemfd"]


class GuestMemfd(File):
    """A guest_memfd of ``size_bytes`` and the memslots bound to parts of it.

    It holds no memory: guests here write to the userspace address of their slots only.
    """

    kind = "guest_memfd"

    def __init__(self, services: Services, vm: Vm, size_bytes: int) -> None:
        super().__init__(services)
        self._vm = vm
        self._size_bytes = size_bytes
        self._bound: dict[int, tuple[int, int]] = {}  # slot key: first and last byte + 1

    def check(self, vm: Vm, region: MemoryRegion) -> None:
        """Whether the slot can be bound.

        Raises:
            OSError: EINVAL: of another VM, past the end, or a part of it is bound already.
        """
        first, end = _span(region)
        taken = any(first < high and low < end for low, high in self._bound.values())
        if vm is not self._vm or end > self._size_bytes or taken:
            raise oserror(errno.EINVAL)

    def bind(self, region: MemoryRegion) -> None:
        """Bind a checked slot."""
        self._bound[region.slot] = _span(region)

    def unbind(self, key: int) -> None:
        """The slot was deleted."""
        self._bound.pop(key, None)


def _span(region: MemoryRegion) -> tuple[int, int]:
    return region.guest_memfd_offset, region.guest_memfd_offset + region.memory_size
