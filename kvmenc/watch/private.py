"""Where private/shared comes from in a running QEMU, and why from there."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from kvmenc.backend import LocalBackend
from kvmenc.backend.tracee import TraceeBackend
from kvmenc.encstate.choose import AtHand, Choice, SourceName, choose
from kvmenc.encstate.content import ContentSource
from kvmenc.encstate.pageenc import PageEncSource, offered_revisions
from kvmenc.encstate.simulated import ALL_SHARED
from kvmenc.errors import NotSupported
from kvmenc.kvm import KvmSystem, Vm
from kvmenc.memory.layout import Layout

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kvmenc.memory.slots import MemSlot
    from kvmenc.memory.sync import PrivateSource
    from kvmenc.memory.words import Words
    from kvmenc.tracee import Injector
    from kvmenc.uapi import PageEncRevision

__all__ = ["FixedSource", "bitmap_source", "offered_revision", "private_source", "with_state"]


class FixedSource:
    """A ``PrivateSource`` that was read once, because reading it takes longer than a look may.

    Args:
        source: read now.
        slots: of these.
    """

    def __init__(self, source: PrivateSource, slots: Sequence[MemSlot]) -> None:
        self.name = f"{source.name}, read once"
        self._words = {_place(slot): words.copy() for slot, words in source.read(slots)}

    def read(self, slots: Sequence[MemSlot]) -> Iterator[tuple[MemSlot, Words]]:
        """Yield each slot's words as they were."""
        for slot in slots:
            yield slot, self._words[_place(slot)]


def _place(slot: MemSlot) -> tuple[int, int, int]:
    """What a slot is, whatever its number: numbers become known only when logging starts."""
    return slot.as_id, slot.base_gfn, slot.npages


def offered_revision(name: str) -> PageEncRevision:
    """The posting of KVM_GET_PAGE_ENC_BITMAP of that name, if this kernel may have it.

    That is asked on a VM of our own, never on somebody's guest.

    Raises:
        InputError: there is no such posting.
        NotSupported: the kernel does not have it.
    """
    with KvmSystem.open(LocalBackend()) as system, system.create_vm() as scratch:
        return offered_revisions(scratch).choose(name)


def bitmap_source(injector: Injector, layout: Layout, revision: PageEncRevision) -> PageEncSource:
    """The kernel's bitmap of the process's VM, read by the process.

    Args:
        injector: makes it read.
        layout: its slots, by KVM's numbers.
        revision: of ``offered_revision``.
    """
    backend = TraceeBackend(injector, layout.slots, revision)
    return PageEncSource(Vm(backend, injector.target.vm_fd, 0), revision)


def private_source(at_hand: AtHand, layout: Layout, named: SourceName | None) -> Choice:
    """The source asked for, or the best at hand.

    Args:
        at_hand: what there is.
        layout: the guest's memslots and RAMBlocks.
        named: what the user wants.

    Raises:
        NotSupported: it is not at hand, or nothing tells it for such a VM.
    """
    choice = choose(at_hand, named)
    if not isinstance(choice, Choice):
        raise NotSupported(choice.reason)
    if choice.source.name != ContentSource.name:
        return choice
    return Choice(FixedSource(choice.source, layout.slots), choice.reason)


def with_state(layout: Layout, choice: Choice) -> Layout:
    """The layout, in which pages of no memslot are shared too if all pages are.

    Nothing tells the state of a page that has no gfn, so it is private by default; but not in a VM
    that encrypts nothing.
    """
    if choice.source.name != ALL_SHARED:
        return layout
    blocks = [replace(block, override="shared") for block in layout.blocks]
    return Layout(layout.slots, blocks, layout.page_size)
