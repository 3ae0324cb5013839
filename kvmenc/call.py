"""One ioctl, checked: the argument fits the number, EINTR is retried, a failure says what to do.

The table of hints is keyed by the request's kernel name and the errno. Source of each row: Linux
v6.12, virt/kvm/kvm_main.c and Documentation/virt/kvm/api.rst, unless it says otherwise.
"""

from __future__ import annotations

import ctypes
import errno
from types import MappingProxyType
from typing import TYPE_CHECKING

from kvmenc.errors import IoctlError, NotSupported, SlotNotLogged, WrongProcess, errno_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kvmenc.backend import Backend
    from kvmenc.uapi import Ioctl

__all__ = ["HINTS", "call", "hint_for", "named_error"]

_LOG_ABSENT = "no such memslot, or it was made without dirty logging (KVM_MEM_LOG_DIRTY_PAGES)"
_NOT_PINNED = (
    "the memory is not mapped, or more of it than RLIMIT_MEMLOCK allows: run as root, or raise"
    " `ulimit -l`"
)
_RING_IN_USE = "the VM tracks dirty pages in a ring: read the vCPUs' rings instead"

HINTS: Mapping[tuple[str, int], str] = MappingProxyType(
    {
        ("KVM_CREATE_VM", errno.EINVAL): "the kernel does not offer this VM type",
        ("KVM_CREATE_VM", errno.ENOMEM): "the kernel is out of memory for another VM",
        ("KVM_CREATE_VCPU", errno.EEXIST): "the VM has a vCPU of this id already",
        ("KVM_CREATE_VCPU", errno.EINVAL): "the vCPU id is beyond KVM_CAP_MAX_VCPU_ID",
        ("KVM_SET_USER_MEMORY_REGION", errno.EEXIST): "another memslot covers some of these gfns",
        ("KVM_SET_USER_MEMORY_REGION", errno.EINVAL): (
            "address or size not page aligned, too large, a slot id too high, or flags the kernel"
            " does not know; an existing slot's size cannot change"
        ),
        ("KVM_SET_USER_MEMORY_REGION2", errno.EINVAL): (
            "as KVM_SET_USER_MEMORY_REGION; and a slot with guest_memfd cannot be dirty-logged"
        ),
        ("KVM_GET_DIRTY_LOG", errno.ENOENT): _LOG_ABSENT,
        ("KVM_GET_DIRTY_LOG", errno.ENXIO): _RING_IN_USE,
        ("KVM_GET_DIRTY_LOG", errno.EINVAL): "the slot id or address space is out of range",
        ("KVM_GET_DIRTY_LOG", errno.EFAULT): (
            "the bitmap's address is bad; without manual protect its dirty bits are lost:"
            " treat every page of the slot as dirty"
        ),
        ("KVM_CLEAR_DIRTY_LOG", errno.ENOENT): _LOG_ABSENT,
        ("KVM_CLEAR_DIRTY_LOG", errno.ENXIO): _RING_IN_USE,
        ("KVM_CLEAR_DIRTY_LOG", errno.EINVAL): (
            "first_page must be a multiple of 64, and num_pages too unless it ends the slot"
        ),
        ("KVM_ENABLE_CAP", errno.EINVAL): (
            "the capability is unknown, its arguments are wrong, or it is too late: the dirty ring"
            " must be enabled once, before the first vCPU"
        ),
        (
            "KVM_ENABLE_CAP",
            errno.E2BIG,
        ): "the dirty ring is larger than KVM_CAP_DIRTY_LOG_RING says",
        # Not mainline: see uapi.REVISIONS for each posting.
        ("KVM_GET_PAGE_ENC_BITMAP", errno.ENOMEM): "the range is too large for the kernel",
        ("KVM_GET_PAGE_ENC_BITMAP", errno.EINVAL): (
            "from v7 on: the guest has not said yet that it is ready to be migrated"
        ),
        # Linux v6.12, arch/x86/kvm/svm/sev.c and drivers/crypto/ccp/sev-dev.c.
        ("KVM_MEMORY_ENCRYPT_OP", errno.EBADF): "the guest's sev_fd is not an open /dev/sev",
        ("KVM_MEMORY_ENCRYPT_OP", errno.EINVAL): (
            "no such command here, or its argument is wrong: a length is 0 or above 16 KiB, the"
            " memory crosses a page, or the VM is an SEV guest already"
        ),
        ("KVM_MEMORY_ENCRYPT_OP", errno.ENOMEM): _NOT_PINNED,
        ("KVM_MEMORY_ENCRYPT_OP", errno.EPERM): "the VM is an SNP guest: it has other commands",
        ("KVM_MEMORY_ENCRYPT_REG_REGION", errno.ENOMEM): _NOT_PINNED,
        ("KVM_RESET_DIRTY_RINGS", errno.EINVAL): "the VM has no dirty ring",
    }
)

_BY_ERRNO: Mapping[int, str] = MappingProxyType(
    {
        errno.EBADF: "the file descriptor is closed",
        errno.EFAULT: "an address given to the kernel is not mapped",
        errno.ENOMEM: "the kernel is out of memory for this call",
        errno.ENOTTY: "this kernel does not implement it, or not for this kind of VM",
    }
)

_WRONG_PROCESS = (
    "KVM answers only in the process that created the VM (kvm->mm != current->mm), and not after"
    " fork; or the VM is dead: issue it in that process"
)


def hint_for(ioctl: str, number: int) -> str:
    """What to do when ``ioctl`` (a kernel name) fails with errno ``number``; may be empty."""
    return HINTS.get((ioctl, number)) or _BY_ERRNO.get(number, "")


def call(
    backend: Backend,
    fd: int,
    request: Ioctl,
    arg: ctypes.Structure | ctypes.c_ulong | int = 0,
    detail: str = "",
) -> int:
    """Issue ``request`` on ``fd`` through ``backend`` and return what the kernel returned.

    Args:
        backend: who carries it out.
        fd: an open file descriptor of that backend.
        request: the ioctl; its number says how large ``arg`` must be.
        arg: a ctypes object, passed by address, or an integer, passed as it is. Whatever addresses
            it holds must stay alive during the call.
        detail: what the call was about (``slot=3``), for the error's text.

    Raises:
        TypeError: ``arg`` is a ctypes object of another size than the number says.
        IoctlError: the call failed; WrongProcess, SlotNotLogged where a caller may want to know.
        NotSupported: ENOTTY.
    """
    if not isinstance(arg, int):
        if request.size != ctypes.sizeof(arg):
            msg = f"{request.name} takes {request.size} bytes, {type(arg).__name__} has others"
            raise TypeError(msg)
        arg = ctypes.addressof(arg)  # the caller's reference keeps it alive during the call
    while True:
        try:
            return backend.ioctl(fd, request, arg)
        except InterruptedError:
            continue
        except OSError as error:
            raise named_error(request.name, error.errno or 0, detail) from error


def named_error(ioctl: str, number: int, detail: str) -> IoctlError | NotSupported:
    """The error for ``ioctl`` (a kernel name) failing with errno ``number``."""
    hint = hint_for(ioctl, number)
    if number == errno.ENOTTY:
        return NotSupported(f"{ioctl}({detail}) failed: {errno_name(number)}: {hint}")
    if number == errno.EIO:
        return WrongProcess(ioctl, number, detail, _WRONG_PROCESS)
    if number == errno.ENOENT:
        return SlotNotLogged(ioctl, number, detail, hint)
    return IoctlError(ioctl, number, detail, hint)
