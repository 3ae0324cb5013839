"""Descriptors of other processes: what they are of, had here too, and found again.

A VM's descriptor says nothing that would tell it from another VM's; kcmp() does.
Source: Linux v6.12, kernel/kcmp.c; kernel/pid.c, pidfd_getfd; virt/kvm/kvm_main.c, kvm_create_vm
and create_vcpu_fd, for their names.
"""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress
from pathlib import Path

from fakekvm.errors import oserror

__all__ = ["VCPU_NAME", "VM_NAME", "copy_of", "is_same", "named"]

VM_NAME, VCPU_NAME = "anon_inode:kvm-vm", "anon_inode:kvm-vcpu:"

_SYS_KCMP, _SYS_PIDFD_GETFD = 312, 438
_KCMP_FILE = 0

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def _syscall(*numbers: int) -> int:
    result = int(_libc.syscall(*map(ctypes.c_long, numbers)))
    if result < 0:
        raise oserror(ctypes.get_errno())
    return result


def copy_of(pid: int, fd: int) -> int:
    """A descriptor here of what a process's is of.

    Raises:
        OSError: EBADF; ESRCH; EPERM.
    """
    pidfd = os.pidfd_open(pid)
    try:
        return _syscall(_SYS_PIDFD_GETFD, pidfd, fd, 0)
    finally:
        os.close(pidfd)


def is_same(own: int, tid: int, fd: int) -> bool:
    """Whether our descriptor ``own`` and a thread's ``fd`` are of one open file.

    Raises:
        OSError: EBADF; ESRCH; EPERM; ENOSYS: a kernel without CONFIG_KCMP.
    """
    return _syscall(_SYS_KCMP, os.getpid(), tid, _KCMP_FILE, own, fd) == 0


def named(pid: int, prefix: str) -> list[int]:
    """The descriptors of a process that are of files whose names begin so; none: it is gone."""
    found = []
    with suppress(OSError):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                if str(link.readlink()).startswith(prefix):
                    found.append(int(link.name))
    return sorted(found)
