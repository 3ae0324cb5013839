"""/dev/sev: the platform that VMs' commands go to."""

from __future__ import annotations

import ctypes
import errno
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Self

from kvmenc import uapi
from kvmenc.call import call
from kvmenc.errors import HostError, errno_name

if TYPE_CHECKING:
    from kvmenc.backend import Backend

__all__ = ["SevPlatform"]


class SevPlatform:
    """/dev/sev, open for reading: what could change the platform is refused to us.

    A context manager.

    Attributes:
        fd: the descriptor that SEV guests are given.
    """

    def __init__(self, backend: Backend, path: str = "/dev/sev") -> None:
        """Open it.

        Raises:
            HostError: it is absent, or may not be opened.
        """
        self._backend = backend
        try:
            self.fd = backend.open(path, os.O_RDONLY)
        except OSError as error:
            raise HostError(_why_not_open(path, error.errno or 0)) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._backend.close(self.fd)

    def guest_count(self) -> int | None:
        """Guests that the firmware holds now; None if it does not say."""
        status = uapi.sev_user_data_status()
        command = uapi.sev_issue_cmd(cmd=uapi.SEV_PLATFORM_STATUS, data=ctypes.addressof(status))
        with suppress(HostError):
            call(self._backend, self.fd, uapi.SEV_ISSUE_CMD, command)
            return int(status.guest_count)
        return None


def _why_not_open(path: str, number: int) -> str:
    remedy = {
        errno.ENOENT: "no SEV firmware driver (ccp), or no secure processor here",
        errno.EACCES: "run as root",
        errno.EPERM: "run as root",
    }.get(number, os.strerror(number))
    return f"cannot open {path}: {errno_name(number)}: {remedy}"
