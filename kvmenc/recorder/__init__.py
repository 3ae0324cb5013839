"""Records what any program asks of the real KVM: its system calls, seen from outside by ptrace."""

from __future__ import annotations

from kvmenc.recorder.session import record

__all__ = ["record"]
