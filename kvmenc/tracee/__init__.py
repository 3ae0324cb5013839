"""System calls carried out by a process that is not ours, and that is left as it was found."""

from __future__ import annotations

from kvmenc.tracee.copy import Copy, Span
from kvmenc.tracee.frame import SystemCall
from kvmenc.tracee.injector import Injector
from kvmenc.tracee.target import Target

__all__ = ["Copy", "Injector", "Span", "SystemCall", "Target"]
