"""What a call changes in the mappings of vCPUs: kvm_run and the dirty ring.

What a guest hands to its VMM by port and MMIO is there too; unless it is asked for it is taken for
zeros, as it is a part of what the guest holds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kvmenc import uapi
from kvmenc.backend.recordmodel import Change

if TYPE_CHECKING:
    import mmap

__all__ = ["Mappings", "Watched"]

#: Changes that are as near as this are kept as one.
_GAP_BYTES = 32
_PAGE_BYTES = 4096
#: The coalesced ring's first and last index: no data.
_RING_HEAD_BYTES = 8
#: These exits have something else where the data of an MMIO is; others leave the last one there.
_NO_MMIO_DATA = frozenset(
    {
        uapi.KVM_EXIT_IO,
        uapi.KVM_EXIT_HYPERCALL,
        uapi.KVM_EXIT_X86_RDMSR,
        uapi.KVM_EXIT_X86_WRMSR,
        uapi.KVM_EXIT_MEMORY_FAULT,
    }
)


@dataclass(frozen=True, slots=True)
class _Mapping:
    symbol: int
    offset: int
    area: mmap.mmap
    contents: bool

    def now(self) -> bytes:
        """A copy of it; nothing once the program has unmapped it."""
        try:
            copy = self.area[:]
        except ValueError:
            return b""
        return copy if self.contents else _without_contents(copy, self.offset)


Watched = tuple[_Mapping, bytes]


class Mappings:
    """The mappings of a program's vCPUs, by the symbol of the descriptor.

    Args:
        contents: what a guest hands over is kept too.
    """

    def __init__(self, *, contents: bool) -> None:
        self._contents = contents
        self._mappings: dict[int, list[_Mapping]] = {}
        self._vms: dict[int, int] = {}

    def born(self, vcpu: int, vm: int) -> None:
        """A VM has made a vCPU."""
        self._vms[vcpu] = vm

    def add(self, symbol: int, offset: int, area: mmap.mmap) -> tuple[Change, ...]:
        """A new mapping; returns what is in it other than zeros."""
        mapping = _Mapping(symbol, offset, area, self._contents)
        self._mappings.setdefault(symbol, []).append(mapping)
        return tuple(_changes(mapping, bytes(len(area)), mapping.now()))

    def forget(self, symbol: int) -> None:
        """A descriptor is closed; what is still mapped of it changes unseen."""
        self._mappings.pop(symbol, None)
        self._vms.pop(symbol, None)

    def watch(self, symbol: int, request: int) -> list[Watched]:
        """What a call may change, as it is before it."""
        if request == uapi.KVM_RUN:
            found = list(self._mappings.get(symbol, ()))
        elif request == uapi.KVM_RESET_DIRTY_RINGS:
            vcpus = [vcpu for vcpu, vm in list(self._vms.items()) if vm == symbol]
            found = [it for vcpu in vcpus for it in self._mappings.get(vcpu, ())]
        else:
            found = []
        return [(mapping, mapping.now()) for mapping in found]

    def changes(self, watched: list[Watched]) -> tuple[Change, ...]:
        """What it has changed."""
        return tuple(
            change for mapping, old in watched for change in _changes(mapping, old, mapping.now())
        )

    def exit_reason(self, symbol: int) -> int | None:
        """Why a vCPU stopped last; None: its kvm_run is not mapped."""
        for mapping in self._mappings.get(symbol, ()):
            if mapping.offset == 0:
                return int(uapi.kvm_run.from_buffer_copy(mapping.area).exit_reason)
        return None


def _without_contents(copy: bytes, offset: int) -> bytes:
    """Part of a vCPU's mapping with zeros for what the guest put there for its VMM."""
    blank = bytearray(copy)
    if offset == 0:
        state = uapi.kvm_run.from_buffer(blank)
        if state.exit_reason not in _NO_MMIO_DATA:
            state.mmio.data[:] = bytes(len(state.mmio.data))
    port = uapi.KVM_PIO_PAGE_OFFSET * _PAGE_BYTES - offset
    ring = uapi.KVM_COALESCED_MMIO_PAGE_OFFSET * _PAGE_BYTES - offset
    for first, last in ((port, port + _PAGE_BYTES), (ring + _RING_HEAD_BYTES, ring + _PAGE_BYTES)):
        if 0 <= first < len(blank):
            blank[first:last] = bytes(min(last, len(blank)) - first)
    return bytes(blank)


def _changes(mapping: _Mapping, old: bytes, new: bytes) -> list[Change]:
    if len(old) != len(new) or old == new:
        return []
    differs = np.flatnonzero(np.frombuffer(old, np.uint8) != np.frombuffer(new, np.uint8))
    ends = np.flatnonzero(np.diff(differs) > _GAP_BYTES)
    firsts, lasts = differs[np.r_[0, ends + 1]], differs[np.r_[ends, differs.size - 1]]
    return [
        Change(fd=mapping.symbol, offset=mapping.offset + first, data=new[first : last + 1])
        for first, last in zip(firsts.tolist(), lasts.tolist(), strict=True)
    ]
