"""A backend that is nothing but the encryption state ioctls."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from fakekvm.encbitmap import EncBitmap
from kvmenc.kvm import Vm

if TYPE_CHECKING:
    import mmap
    from collections.abc import Callable

    from kvmenc.memory.slots import MemSlot


class EncKernel:
    """Answers ioctls with ``answer(request, arg)``; ``requests`` remembers them."""

    name = "enc"

    def __init__(self, answer: Callable[[int, int], int]) -> None:
        self.answer = answer
        self.requests: list[tuple[int, int]] = []

    def open(self, path: str, flags: int) -> int:
        raise NotImplementedError

    def mmap(self, fd: int, length: int, offset: int) -> mmap.mmap:
        raise NotImplementedError

    def close(self, fd: int) -> None:
        raise NotImplementedError

    def ioctl(self, fd: int, request: int, arg: int) -> int:
        self.requests.append((request, arg))
        return self.answer(request, arg)

    @property
    def vm(self) -> Vm:
        return Vm(self, 3, 0)


def fake_kernel(revision: str, slots: list[MemSlot]) -> tuple[EncKernel, EncBitmap]:
    """A kernel of one revision, and the guest's side of it."""
    by_key = {slot.key: (slot.base_gfn, slot.npages) for slot in slots}
    bitmap = EncBitmap(revision, find_slot=by_key.__getitem__)

    def answer(request: int, arg: int) -> int:
        if request not in bitmap.requests:
            raise OSError(errno.ENOTTY, "not this one")
        return bitmap.ioctl(request, arg)

    return EncKernel(answer), bitmap
