"""One end of a rehearsal: a VM, its memory, and the firmware that its private pages go through."""

from __future__ import annotations

import ctypes
import hashlib
import os
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

import numpy as np

from kvmenc import uapi
from kvmenc.backend.fake import FakeBackend
from kvmenc.contents import Contents
from kvmenc.contents.where import Where
from kvmenc.encstate.pageenc import PageEncSource
from kvmenc.errors import InputError
from kvmenc.firmware import SevGuest, SevPlatform
from kvmenc.guest.scratch import PAGE, GuestRam
from kvmenc.kvm import KvmSystem
from kvmenc.memory.layout import Layout
from kvmenc.memory.slots import MemSlot, RamBlock
from kvmenc.memory.sync import GuestMaps

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from fakekvm import Kernel
    from kvmenc.kvm import Vcpu, Vm
    from kvmenc.memory.maps import PrivateMap
    from kvmenc.memory.sync import PrivateSource
    from kvmenc.memory.words import Pages

    Flags = NDArray[np.bool_]
    Rows = NDArray[np.uint8]

__all__ = ["FakeVm", "Side", "SyncingBackend", "guest_layout", "revision_of"]

#: Rows that are looked at at once stay in the cache.
_LOOK_PAGES = 512
_HOLE_PAGES, _HIGH_GFN = 3 << 18, 1 << 20
_LOW_PAGES, _ABOVE_GFN, _SKIPPED_PAGES = 160, 0x100, 13


@dataclass(frozen=True, slots=True)
class Side:
    """What is known of one end.

    Attributes:
        layout: its memslots and RAMBlocks; the memory is this process's.
        vm: whose dirty log and private state are read.
        private: where the private state is read.
        sev: the guest as the firmware knows it: the same VM, but where no firmware serves it.
        kernel: whose firmware that is.
        contents: tells pages that were never touched, which are zero, without touching them.
    """

    layout: Layout
    vm: Vm
    private: PrivateSource
    sev: SevGuest
    kernel: Kernel
    contents: Contents

    def rows(self, block: RamBlock) -> Rows:
        """A RAMBlock's memory itself, a row for each page."""
        memory = (ctypes.c_uint8 * (block.npages * PAGE)).from_address(block.host_addr)
        return np.ctypeslib.as_array(memory).reshape(block.npages, PAGE)

    def touched(self, block: RamBlock, pages: Pages) -> Flags:
        """Which of the pages, in ascending order, may hold anything but zeros."""
        found: Flags = self.contents.look(block, pages) != Where.NOWHERE
        return found

    def are_zero(self, block: RamBlock, pages: Pages) -> Flags:
        """Which of the pages, in ascending order, hold only zeros."""
        zero = ~self.touched(block, pages)
        rows, held = self.rows(block), np.flatnonzero(~zero)
        for lo in range(0, held.size, _LOOK_PAGES):
            some = held[lo : lo + _LOOK_PAGES]
            zero[some] = ~rows[pages[some]].view(np.uint64).any(axis=1)
        return zero

    def view(self, block: RamBlock, pages: slice, private: Flags) -> tuple[Pages, Rows]:
        """Pages of a RAMBlock as the guest reads them.

        Args:
            block: of the layout.
            pages: a run of them.
            private: of each whether the guest takes it for private.

        Returns:
            Which of them, counted from the first of the run, may hold anything but zeros; and their
            contents, a row each.
        """
        where = np.arange(pages.start, pages.stop)
        held = np.flatnonzero(self.touched(block, where) | private)
        rows = self.rows(block)[where[held]]
        edges = np.flatnonzero(np.diff(np.concatenate([[False], private, [False]])))
        for start, end in edges.reshape(-1, 2).tolist():
            address = block.host_addr + (pages.start + start) * PAGE
            seen = self.kernel.guest_view(self.sev.vm.fd, address, (end - start) * PAGE)
            first = int(np.searchsorted(held, start))
            rows[first : first + end - start] = np.frombuffer(seen, np.uint8).reshape(-1, PAGE)
        return held, rows

    def digest(self, block: RamBlock, pages: slice, private: Flags) -> bytes:
        """Of what ``view`` tells: the same of any two sides whose guests read the same."""
        held, rows = self.view(block, pages, private)
        some = rows.view(np.uint64).any(axis=1)
        found = hashlib.sha256(held[some].tobytes())
        found.update(np.ascontiguousarray(rows if some.all() else rows[some]).data)
        return found.digest()

    def private_now(self) -> Mapping[str, PrivateMap]:
        """Each RAMBlock's private pages, asked of KVM now."""
        maps = GuestMaps(self.layout)
        maps.copy_private(self.private)
        return maps.private


class SyncingBackend(FakeBackend):
    """A fake on which time passes during a sync: something happens before each of its ioctls.

    Attributes:
        meanwhile: what does.
    """

    def __init__(self, kernel: Kernel, get: int) -> None:
        super().__init__(kernel)
        self.meanwhile: Callable[[], None] = _nothing
        self._syncs = {int(uapi.KVM_GET_DIRTY_LOG), int(uapi.KVM_CLEAR_DIRTY_LOG), get}

    def ioctl(self, fd: int, request: int, arg: int) -> int:
        """As the fake's, a little later."""
        if request in self._syncs:
            self.meanwhile()
        return self.kernel.ioctl(fd, request, arg)


def _nothing() -> None:
    pass


class FakeVm:
    """An SEV guest's VM on a fake kernel, with memory of its own; a context manager.

    Args:
        kernel: the fake, with firmware and an encryption bitmap.
        shape: memslots and RAMBlocks as they are to be, but for where they lie.
        vcpus: how many.
        manual_protect: the dirty log is read without being cleared.

    Attributes:
        backend: by which the VM is reached.
        side: what a migration needs of it.
        vcpus: by id.

    Raises:
        InputError: the fake host has no SEV, or no encryption bitmap.
    """

    def __init__(
        self, kernel: Kernel, shape: Layout, vcpus: int = 0, *, manual_protect: bool = False
    ) -> None:
        self._cleanup = ExitStack()
        with ExitStack() as on_error:
            on_error.callback(self._cleanup.close)
            self._build(kernel, shape, vcpus, manual_protect=manual_protect)
            on_error.pop_all()

    def _build(self, kernel: Kernel, shape: Layout, vcpus: int, *, manual_protect: bool) -> None:
        enter = self._cleanup.enter_context
        revision = revision_of(kernel)
        self._cleanup.callback(kernel.__exit__)
        self.backend = SyncingBackend(kernel, int(revision.get))
        layout = self._placed(shape)
        system, platform = enter(KvmSystem.open(self.backend)), enter(SevPlatform(self.backend))
        sev = enter(SevGuest.create(system, platform))
        if manual_protect:
            sev.vm.enable_manual_protect()
        for slot in layout.slots:
            sev.vm.set_slot(slot)
        for block in layout.blocks:
            sev.register(block.host_addr, block.npages * PAGE)
        self.vcpus: Sequence[Vcpu] = [enter(sev.vm.create_vcpu(it)) for it in range(vcpus)]
        contents = enter(Contents(os.getpid(), layout))
        private = PageEncSource(sev.vm, revision)
        self.side = Side(layout, sev.vm, private, sev, kernel, contents)

    def _placed(self, shape: Layout) -> Layout:
        rams = {it: GuestRam(it.name, it.npages) for it in shape.blocks}
        for ram in rams.values():
            self._cleanup.callback(ram.close)
        return _moved(shape, {block: ram.address for block, ram in rams.items()})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._cleanup.close()


def revision_of(kernel: Kernel) -> uapi.PageEncRevision:
    """The encryption bitmap that a fake host has.

    Raises:
        InputError: it has none, or no SEV.
    """
    host = kernel.host
    if not host.sev or host.enc_revision is None:
        raise InputError(
            "a rehearsal needs a host with SEV and an encryption bitmap: in the scenario say"
            ' host = "sev-v9", or another of the sev-... ones'
        )
    return uapi.REVISIONS[host.enc_revision]


def guest_layout(memory_bytes: float) -> Layout:
    """A guest of so much RAM in one RAMBlock, in the slots that a PC has; it lies nowhere yet.

    Below the VGA hole, above it (from a page of the RAMBlock on that is no multiple of 64), and
    above 4 GiB what does not fit below 3 GiB.

    Raises:
        InputError: it is too small.
    """
    npages, least = int(memory_bytes // PAGE), 2 * (_LOW_PAGES + _SKIPPED_PAGES)
    if npages < least:
        raise InputError(f"--memory: a guest needs {least * PAGE // 1024} KiB at least")
    first = _LOW_PAGES + _SKIPPED_PAGES
    above = min(npages, _HOLE_PAGES) - first
    at = PAGE  # not 0: no mapping is there
    slots = [
        MemSlot(0, 0, _LOW_PAGES, at),
        MemSlot(1, _ABOVE_GFN, above, at + first * PAGE),
    ]
    if npages > _HOLE_PAGES:
        high = at + _HOLE_PAGES * PAGE
        slots.append(MemSlot(2, _HIGH_GFN, npages - _HOLE_PAGES, high))
    return Layout(slots, [RamBlock("ram", npages, at)])


def _moved(shape: Layout, places: Mapping[RamBlock, int]) -> Layout:
    """The same slots and RAMBlocks, at other addresses."""

    def moved(slot: MemSlot) -> MemSlot:
        block = shape.pieces_of(slot)[0].block
        address = places[block] + slot.userspace_addr - block.host_addr
        return replace(slot, userspace_addr=address)

    blocks = [replace(block, host_addr=place) for block, place in places.items()]
    return Layout(map(moved, shape.slots), blocks)
