"""Who carries out an ioctl: the kernel, fakekvm, both, another process, or a recording of one."""

from __future__ import annotations

from kvmenc.backend.base import Backend, unmap
from kvmenc.backend.local import LocalBackend

__all__ = ["Backend", "LocalBackend", "unmap"]
