"""Who carries out an ioctl: the real kernel, fakekvm, or fakekvm laid over the real kernel."""

from __future__ import annotations

from kvmenc.backend.base import Backend, unmap
from kvmenc.backend.local import LocalBackend

__all__ = ["Backend", "LocalBackend", "unmap"]
