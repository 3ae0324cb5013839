"""Another process's KVM, asked through that process: KVM answers a VM's ioctls to nobody else.

Only requests that read are carried out. Source of that rule: Linux v6.12, virt/kvm/kvm_main.c,
kvm_vm_ioctl (EIO where ``kvm->mm != current->mm``).
"""

from __future__ import annotations

import ctypes
import errno
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from kvmenc import uapi
from kvmenc.tracee import Span, SystemCall
from kvmenc.tracee.copy import read_bytes

if TYPE_CHECKING:
    import mmap
    from collections.abc import Iterable, Sequence

    from kvmenc.tracee import Injector
    from kvmenc.uapi import Ioctl, PageEncRevision

__all__ = ["Request", "TraceeBackend"]

_ALIGNMENT = 64
_INT_BYTES = 4
_TAKE_INTEGERS = {
    uapi.KVM_GET_API_VERSION,
    uapi.KVM_CHECK_EXTENSION,
    uapi.KVM_GET_VCPU_MMAP_SIZE,
}


class Request(NamedTuple):
    """One ioctl, as ``Backend.ioctl`` takes it."""

    fd: int
    request: int
    arg: int


class _Sized(Protocol):
    @property
    def key(self) -> int: ...
    @property
    def npages(self) -> int: ...


@dataclass(frozen=True, slots=True)
class _Pointer:
    """A pointer in a struct that the kernel follows.

    Attributes:
        member: its name.
        nbytes: how many bytes it points to.
    """

    member: str
    nbytes: int


@dataclass(frozen=True, slots=True)
class _Argument:
    """What an ioctl's argument is made of: a struct, and what its pointers point to.

    Attributes:
        struct: a copy of the caller's.
        pointers: those that the kernel follows.
        all_written: the kernel writes every byte that they point to, or fails.
    """

    struct: ctypes.Structure
    pointers: tuple[_Pointer, ...]
    all_written: bool = False

    @property
    def nbytes(self) -> int:
        """What it takes of scratch memory."""
        return _up(ctypes.sizeof(self.struct)) + sum(_up(it.nbytes) for it in self.pointers)

    def place(self, address: int) -> tuple[Span, list[Span]]:
        """Settle it at a scratch address: the struct first, pointing at what follows it.

        Returns:
            The struct, and what each pointer points to, here and there.
        """
        struct = Span(ctypes.addressof(self.struct), address, ctypes.sizeof(self.struct))
        pointed, there = [], address + _up(struct.nbytes)
        for pointer in self.pointers:
            here = getattr(self.struct, pointer.member)
            pointed.append(Span(here, there, pointer.nbytes))
            setattr(self.struct, pointer.member, there)
            there += _up(pointer.nbytes)
        return struct, pointed


class TraceeBackend:
    """The KVM of the process that ``injector`` borrows threads of.

    Args:
        injector: entered.
        slots: the VM's memslots: the kernel is told no size when asked for a dirty bitmap, so a
            slot that is not here cannot be read.
        revision: the encryption bitmap's revision, if the kernel has one: what its numbers mean
            must be known. None: it is not read.
    """

    def __init__(
        self,
        injector: Injector,
        slots: Iterable[_Sized],
        revision: PageEncRevision | None = None,
    ) -> None:
        self._injector = injector
        self._target = injector.target
        self._npages = {slot.key: slot.npages for slot in slots}
        self._revision = revision
        self.name = f"process {self._target.pid}"

    def open(self, path: str, flags: int) -> int:  # noqa: ARG002 - the descriptor is open already
        """The target's own descriptor of /dev/kvm.

        Raises:
            OSError: ENOENT: it has none, or another device is asked for.
        """
        if path != "/dev/kvm" or self._target.kvm_fd is None:
            raise _error(errno.ENOENT)
        return self._target.kvm_fd

    def ioctl(self, fd: int, request: int, arg: int) -> int:
        """Have the target issue an ioctl on a descriptor of its own.

        Raises:
            OSError: the kernel's errno. Or without asking it: EPERM for a request that does not
                only read; EBADF for a descriptor that is neither of KVM nor of the VM; ENOENT for
                a memslot of unknown size; EFAULT for a bad address.
            HostError: the target is gone, stopped, or has no thread to be borrowed.
        """
        (result,) = self.ioctls([Request(fd, request, arg)])
        if result < 0:
            raise _error(-result)
        return result

    def ioctls(self, requests: Sequence[Request]) -> list[int]:
        """Many in one stop; returns each result as the kernel gave it, 0 or more, or -errno.

        Raises:
            OSError: as ``ioctl``, without asking the kernel; then none has been issued.
            HostError: as ``ioctl``.
        """
        arguments = [self._argument(*request) for request in requests]
        address = self._injector.reserve(sum(it.nbytes for it in arguments if it))
        calls: list[SystemCall] = []
        sent: list[Span] = []
        fetched: list[tuple[int, Span]] = []
        for number, (request, argument) in enumerate(zip(requests, arguments, strict=True)):
            value = request.arg
            if argument:
                value, address = address, address + argument.nbytes
                struct, pointed = argument.place(value)
                sent += [struct] if argument.all_written else [struct, *pointed]
                fetched += [(number, span) for span in pointed]
            calls.append(SystemCall(uapi.SYS_ioctl, (request.fd, request.request, value)))
        self._injector.copy(sent).send()
        results = self._injector.run(calls)
        self._injector.copy([span for number, span in fetched if results[number] >= 0]).fetch()
        return results

    def mmap(self, fd: int, length: int, offset: int) -> mmap.mmap:  # noqa: ARG002
        """Nothing of another process can be mapped here.

        Raises:
            OSError: EOPNOTSUPP.
        """
        raise _error(errno.EOPNOTSUPP)

    def close(self, fd: int) -> None:
        """Nothing: the descriptor is the target's own."""

    def _argument(self, fd: int, request: int, arg: int) -> _Argument | None:
        """None: the argument is an integer."""
        if fd not in (self._target.vm_fd, self._target.kvm_fd):
            raise _error(errno.EBADF)
        if request in _TAKE_INTEGERS:
            return None
        if request == uapi.KVM_GET_DIRTY_LOG:
            return self._dirty_log(arg)
        if self._revision is not None and request == self._revision.get:
            return self._page_enc(self._revision.get, arg)
        raise _error(errno.EPERM)

    def _dirty_log(self, arg: int) -> _Argument:
        log = _struct_at(uapi.KVM_GET_DIRTY_LOG, arg)
        bitmap = _Pointer("dirty_bitmap", self._slot_bytes(log.slot))
        return _Argument(log, (bitmap,), all_written=True)

    def _page_enc(self, request: Ioctl, arg: int) -> _Argument:
        struct = _struct_at(request, arg)
        match struct:
            case uapi.kvm_page_enc_bitmap():
                pointers = [_Pointer("enc_bitmap", _bitmap_bytes(struct.num_pages))]
            case uapi.kvm_unencrypted_bitmap():
                pointers = [_Pointer("bitmap", self._slot_bytes(struct.slot))]
            case _:
                pointers = [_Pointer("pnents", _INT_BYTES), _Pointer("buffer", struct.size)]
        return _Argument(struct, tuple(pointers))

    def _slot_bytes(self, key: int) -> int:
        if key not in self._npages:
            raise _error(errno.ENOENT)
        return _bitmap_bytes(self._npages[key])


def _struct_at(request: Ioctl, arg: int) -> Any:  # noqa: ANN401 - the request's own struct
    """A copy of the struct at our address ``arg``; EFAULT, as from a kernel, where none is."""
    assert request.argtype is not None
    return request.argtype.from_buffer_copy(read_bytes(os.getpid(), arg, request.size))


def _bitmap_bytes(npages: int) -> int:
    """What the kernel writes: whole 64-bit words."""
    return -(-npages // 64) * 8


def _up(nbytes: int) -> int:
    return -(-nbytes // _ALIGNMENT) * _ALIGNMENT


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))
