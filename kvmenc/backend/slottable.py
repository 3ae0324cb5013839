"""How large each memslot of each VM is: the kernel is told no size when asked for a bitmap."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvmenc import uapi
from kvmenc.backend.callmemory import NO_FD
from kvmenc.tracee.copy import read_bytes

if TYPE_CHECKING:
    from kvmenc.backend.arguments import Slots

__all__ = ["SlotTable"]

_PAGE_BYTES = 4096
_SETS = (uapi.KVM_SET_USER_MEMORY_REGION, uapi.KVM_SET_USER_MEMORY_REGION2)


class SlotTable:
    """Memslots by the VM's symbol, learnt from the calls that set them."""

    def __init__(self) -> None:
        self._slots: dict[int, dict[int, int]] = {}

    def of(self, fd: int) -> Slots:
        """Pages of each of a VM's memslots."""
        return self._slots.get(fd, {})

    def learn(self, pid: int, fd: int, request: int, arg: int) -> None:
        """A call has succeeded: if it set a memslot, that is known from now on."""
        if request not in _SETS or fd == NO_FD:
            return
        # The second struct begins as the first does.
        struct = uapi.kvm_userspace_memory_region
        size = uapi.KVM_SET_USER_MEMORY_REGION.size
        region = struct.from_buffer_copy(read_bytes(pid, arg, size))
        self._slots.setdefault(fd, {})[region.slot] = region.memory_size // _PAGE_BYTES

    def forget(self, fd: int) -> None:
        """The VM's descriptor is closed."""
        self._slots.pop(fd, None)
