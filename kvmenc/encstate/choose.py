"""Which source of private/shared to use, and why."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from kvmenc.encstate.content import ContentSource
from kvmenc.encstate.kinds import UnknownState, VmKind
from kvmenc.encstate.simulated import ConstantSource
from kvmenc.errors import NotSupported

if TYPE_CHECKING:
    from kvmenc.encstate.content import PageReader
    from kvmenc.encstate.hypercalls import MapGpaTracker
    from kvmenc.encstate.pageenc import PageEncSource
    from kvmenc.memory.sync import PrivateSource

__all__ = ["AtHand", "Choice", "SourceName", "choose"]


class SourceName(StrEnum):
    """What a user calls a source; best first."""

    BITMAP = "bitmap"
    HYPERCALLS = "hypercalls"
    CONTENT = "content"
    ALL_PRIVATE = "all-private"
    ALL_SHARED = "all-shared"


@dataclass(frozen=True, slots=True, kw_only=True)
class AtHand:
    """What there is to choose from.

    Attributes:
        kind: the VM's kind.
        bitmap: the kernel's bitmap, of a revision that the user named.
        hypercalls: the guest's announcements, followed from its start on.
        read_pages: a way to read guest memory.
    """

    kind: VmKind
    bitmap: PageEncSource | None = None
    hypercalls: MapGpaTracker | None = None
    read_pages: PageReader | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """A source, and the reason for it in one line."""

    source: PrivateSource
    reason: str


def choose(at_hand: AtHand, name: SourceName | None = None) -> Choice | UnknownState:
    """The source called ``name``; without a name the best at hand, or that there is none.

    Raises:
        NotSupported: the source called ``name`` is not at hand, or says nothing of such a VM.
    """
    if name is None:
        return _best(at_hand)
    choice = _choice(at_hand, name)
    if choice is None:
        msg = f"there is no {name} to take private/shared from: it was not set up for this VM"
        raise NotSupported(msg)
    return Choice(choice.source, f"asked for by name; {choice.reason}")


def _best(at_hand: AtHand) -> Choice | UnknownState:
    for name in _fit_for(at_hand.kind):
        choice = _choice(at_hand, name)
        if choice is not None:
            return choice
    return UnknownState(
        f"which pages of a {at_hand.kind} guest are private is known only by following its"
        " announcements from its start: guest_memfd shows the host neither contents nor a dirty log"
    )


def _fit_for(kind: VmKind) -> tuple[SourceName, ...]:
    records = (SourceName.BITMAP, SourceName.HYPERCALLS)
    if kind == VmKind.PLAIN:
        return (*records, SourceName.ALL_SHARED)
    if kind.uses_guest_memfd:
        return records
    return (*records, SourceName.CONTENT, SourceName.ALL_PRIVATE)


def _choice(at_hand: AtHand, name: SourceName) -> Choice | None:
    match name:
        case SourceName.BITMAP if at_hand.bitmap:
            return Choice(at_hand.bitmap, "the kernel's own record, read by the revision named")
        case SourceName.HYPERCALLS if at_hand.hypercalls:
            return Choice(at_hand.hypercalls, "what the guest announced since its start")
        case SourceName.CONTENT if at_hand.read_pages:
            source = ContentSource(at_hand.read_pages, at_hand.kind)
            return Choice(source, "page contents: shared is sure, private is an upper limit")
        case SourceName.ALL_PRIVATE:
            reason = "an upper limit: all memory is private until the guest shares it"
            return Choice(ConstantSource(private=True), reason)
        case SourceName.ALL_SHARED:
            reason = f"right for a VM that encrypts nothing; this one is {at_hand.kind}"
            return Choice(ConstantSource(private=False), reason)
        case _:
            return None
