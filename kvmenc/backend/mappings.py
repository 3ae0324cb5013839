"""What a call changes in the mappings of vCPUs: kvm_run and the dirty ring."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kvmenc import uapi
from kvmenc.backend.recordmodel import Change

if TYPE_CHECKING:
    import mmap

__all__ = ["Mappings"]

#: Changes that are as near as this are kept as one.
_GAP_BYTES = 32


@dataclass(frozen=True, slots=True)
class _Mapping:
    symbol: int
    offset: int
    area: mmap.mmap

    def now(self) -> bytes:
        """A copy of it; nothing once the program has unmapped it."""
        try:
            return self.area[:]
        except ValueError:
            return b""


class Mappings:
    """The mappings of a program's vCPUs, by descriptor."""

    def __init__(self) -> None:
        self._mappings: dict[int, list[_Mapping]] = {}
        self._vms: dict[int, int] = {}

    def born(self, vcpu: int, vm: int) -> None:
        """A VM has made a vCPU."""
        self._vms[vcpu] = vm

    def add(self, fd: int, offset: int, area: mmap.mmap, symbol: int) -> tuple[Change, ...]:
        """A new mapping; returns what is in it other than zeros."""
        mapping = _Mapping(symbol, offset, area)
        self._mappings.setdefault(fd, []).append(mapping)
        return tuple(_changes(mapping, bytes(len(area)), mapping.now()))

    def forget(self, fd: int) -> None:
        """A descriptor is closed; what is still mapped of it changes unseen."""
        self._mappings.pop(fd, None)
        self._vms.pop(fd, None)

    def watch(self, fd: int, request: int) -> list[tuple[_Mapping, bytes]]:
        """What a call may change, as it is before it."""
        if request == uapi.KVM_RUN:
            found = list(self._mappings.get(fd, ()))
        elif request == uapi.KVM_RESET_DIRTY_RINGS:
            vcpus = [vcpu for vcpu, vm in list(self._vms.items()) if vm == fd]
            found = [it for vcpu in vcpus for it in self._mappings.get(vcpu, ())]
        else:
            found = []
        return [(mapping, mapping.now()) for mapping in found]

    def changes(self, watched: list[tuple[_Mapping, bytes]]) -> tuple[Change, ...]:
        """What it has changed."""
        return tuple(
            change for mapping, old in watched for change in _changes(mapping, old, mapping.now())
        )


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
