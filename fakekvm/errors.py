"""How a fake call fails: ``OSError`` with the kernel's errno."""

from __future__ import annotations

import os

__all__ = ["oserror"]


def oserror(number: int) -> OSError:
    """The exception of errno ``number``, to be raised."""
    return OSError(number, os.strerror(number))
