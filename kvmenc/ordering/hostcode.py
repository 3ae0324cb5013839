"""The sync code itself, put to every question a kernel could put to it, as a table.

The checker does not hold a copy of kvmenc's sync. It runs ``HostSync`` (so ``GuestMaps``,
``DirtyLogSource``, ``PageEncSource``, ``Vm`` and the structs below them) against a kernel whose
answers are scripted, once for every bitmap that the host may hold before and every answer that the
kernel may give, and writes down what it asked, in which order, and what its bitmaps became. The
explorer then looks these up.

The pages lie where a careless copy fails: in the middle of a word, at different places in memslot
and RAMBlock, between neighbours that must stay as they are, in answers with garbage behind the end.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from kvmenc import uapi
from kvmenc.encstate.pageenc import PageEncSource
from kvmenc.kvm import KvmSystem
from kvmenc.memory.layout import Layout
from kvmenc.memory.slots import MemSlot, RamBlock
from kvmenc.ordering.protocols import Clearing, HostSync, Protocol

if TYPE_CHECKING:
    import mmap

    from numpy.typing import NDArray

    from kvmenc.memory.words import Words

__all__ = ["Call", "HostCode", "SyncCode", "host_code", "table_index"]

#: Of the revisions with a bitmap and GET alone, the last that was posted.
_REVISION = uapi.REVISIONS["v9"]
_BLOCK_PAGES, _FIRST_PAGE = 70, 31
_FIRST_GFN, _ADDRESS = 0x100, 0x7F00_0000_0000
_ALL = (1 << 64) - 1


class Call(StrEnum):
    """What a host does that a guest can come between."""

    GET_DIRTY = "GET_DIRTY"
    GET_AND_CLEAR = "GET_DIRTY, which clears"
    CLEAR = "CLEAR"
    GET_PRIVATE = "GET_PRIVATE"


@dataclass(frozen=True, slots=True)
class SyncCode:
    """What one sync does.

    Attributes:
        calls: those of ``sync`` and ``before_reading``, in their order.
        after: those of ``after_reading``.
        table: ``table_index`` of what the host held and the kernel answered -> what the host
            holds then: dirty bits, and private bits above them.
    """

    calls: tuple[Call, ...]
    after: tuple[Call, ...]
    table: NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class HostCode:
    """What a protocol does at the first sync, and at those after it."""

    npages: int
    first: SyncCode
    later: SyncCode


def table_index(npages: int, dirty: int, private: int, got_dirty: int, got_private: int) -> int:
    """Where a table has an answer: bits of pages before the sync, and as read in it."""
    index = 0
    for bits in (got_private, got_dirty, private, dirty):
        index = index << npages | bits
    return index


@cache
def host_code(protocol: Protocol, npages: int) -> HostCode:
    """Run the protocol's code on every input; a second or less."""
    first, later = (_SyncRun(protocol, npages, later=later).code() for later in (False, True))
    return HostCode(npages, first, later)


class _ScriptedKernel:
    """A ``Backend`` with one slot, whose answers are given beforehand; it notes what is asked."""

    name = "scripted"

    def __init__(self, *, get_clears: bool) -> None:
        self._get = Call.GET_AND_CLEAR if get_clears else Call.GET_DIRTY
        self.script(0, 0)

    def script(self, dirty: int, private: int) -> None:
        """Give these answers from now on, and forget what was asked."""
        self.dirty, self.private = dirty, private
        self.calls: list[Call] = []
        self.cleared: int | None = None

    def open(self, path: str, flags: int) -> int:  # noqa: ARG002
        return 0

    def close(self, fd: int) -> None:
        pass

    def mmap(self, fd: int, length: int, offset: int) -> mmap.mmap:
        raise NotImplementedError

    def ioctl(self, fd: int, request: int, arg: int) -> int:  # noqa: ARG002
        if request == uapi.KVM_GET_API_VERSION:
            return uapi.KVM_API_VERSION
        if request == uapi.KVM_GET_DIRTY_LOG:
            self._answer(self._get, uapi.kvm_dirty_log.from_address(arg).dirty_bitmap, self.dirty)
        elif request == _REVISION.get:
            bitmap = uapi.kvm_page_enc_bitmap.from_address(arg).enc_bitmap
            self._answer(Call.GET_PRIVATE, bitmap, self.private)
        elif request == uapi.KVM_CLEAR_DIRTY_LOG:
            self.calls.append(Call.CLEAR)
            bitmap = uapi.kvm_clear_dirty_log.from_address(arg).dirty_bitmap
            self.cleared = ctypes.c_uint64.from_address(bitmap).value
        return 0

    def _answer(self, call: Call, address: int, bits: int) -> None:
        self.calls.append(call)
        ctypes.c_uint64.from_address(address).value = bits


class _SyncRun:
    """One sync of a protocol, the first or a later one, run again for every input."""

    _host: HostSync

    def __init__(self, protocol: Protocol, npages: int, *, later: bool) -> None:
        self._protocol, self._npages, self._later = protocol, npages, later
        slot = MemSlot(0, _FIRST_GFN, npages, _ADDRESS + _FIRST_PAGE * 4096)
        self._layout = Layout([slot], [RamBlock("ram", _BLOCK_PAGES, _ADDRESS)])
        self._kernel = _ScriptedKernel(get_clears=protocol.clearing == Clearing.BY_GET)
        self._vm = KvmSystem.open(self._kernel).create_vm()
        self._private = PageEncSource(self._vm, _REVISION)
        self._begin()
        if later:
            self._host.sync()
            self._host.before_reading()
            self._host.after_reading()

    def _begin(self) -> None:
        self._host = HostSync(self._protocol, self._vm, self._private, self._layout)

    def code(self) -> SyncCode:
        """The table, and the calls.

        Raises:
            RuntimeError: the code asks in an order that depends on answers, clears other bits than
                those it read, or touches a neighbour: a table cannot say what it does.
        """
        inputs = list(product(range(1 << self._npages), repeat=4))
        table, orders = np.empty(len(inputs), np.uint8), set()
        for bits in inputs:
            calls, after, held = self._once(*bits)
            orders.add((calls, after))
            table[table_index(self._npages, *bits)] = held
        if len(orders) > 1:
            raise self._error(f"its calls depend on what they return: {orders}")
        return SyncCode(*orders.pop(), table)

    def _once(
        self, dirty: int, private: int, got_dirty: int, got_private: int
    ) -> tuple[tuple[Call, ...], tuple[Call, ...], int]:
        """Calls before and after reading, and what the host then holds."""
        if not self._later:
            self._begin()
        host, garbage = self._host, _ALL << self._npages & _ALL
        maps = host.maps.dirty["ram"].words, host.maps.private["ram"].words
        for words, bits in zip(maps, (dirty, private), strict=True):
            words[0] = int(words[0]) & ~self._mask | bits << _FIRST_PAGE
        before = [self._around(words) for words in maps]
        self._kernel.script(got_dirty, got_private | garbage)
        host.sync()
        host.before_reading()
        calls = tuple(self._kernel.calls)
        host.after_reading()
        self._check(got_dirty)
        if [self._around(words) for words in maps] != before:
            raise self._error("it changed a neighbour's bit")
        held = [(int(words[0]) & self._mask) >> _FIRST_PAGE for words in maps]
        return calls, tuple(self._kernel.calls[len(calls) :]), held[0] | held[1] << self._npages

    @property
    def _mask(self) -> int:
        return ((1 << self._npages) - 1) << _FIRST_PAGE

    def _around(self, words: Words) -> list[int]:
        return [int(words[0]) & ~self._mask, *words[1:].tolist()]

    def _check(self, got_dirty: int) -> None:
        cleared = self._kernel.cleared
        if cleared is not None and cleared & ~(_ALL << self._npages) != got_dirty:
            raise self._error(f"it read the dirty bits {got_dirty:#x} and cleared {cleared:#x}")

    def _error(self, what: str) -> RuntimeError:
        return RuntimeError(f"{self._protocol.name}: no table can say what it does: {what}")
