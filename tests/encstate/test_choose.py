"""The best source at hand, and why it was chosen."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest

from kvmenc.encstate.choose import AtHand, Choice, SourceName, choose
from kvmenc.encstate.content import ContentSource
from kvmenc.encstate.hypercalls import MapGpaTracker
from kvmenc.encstate.kinds import UnknownState, VmKind
from kvmenc.encstate.simulated import ConstantSource
from kvmenc.errors import NotSupported

if TYPE_CHECKING:
    from kvmenc.encstate.pageenc import PageEncSource
    from kvmenc.memory.slots import MemSlot

BITMAP = cast("PageEncSource", object())
TRACKER = MapGpaTracker([])


def nothing(_slot: MemSlot, _first: int, _npages: int) -> bytes:
    return b""


def chosen(at_hand: AtHand, name: SourceName | None = None) -> Choice:
    choice = choose(at_hand, name)
    assert isinstance(choice, Choice)
    return choice


@pytest.mark.parametrize("kind", VmKind)
def test_the_kernels_record_is_best_for_every_kind(kind: VmKind) -> None:
    everything = AtHand(kind=kind, bitmap=BITMAP, hypercalls=TRACKER, read_pages=nothing)
    assert chosen(everything).source is BITMAP


@pytest.mark.parametrize("kind", VmKind)
def test_the_guests_announcements_come_next(kind: VmKind) -> None:
    assert chosen(AtHand(kind=kind, hypercalls=TRACKER, read_pages=nothing)).source is TRACKER


@pytest.mark.parametrize("kind", [VmKind.SEV, VmKind.SEV_ES])
def test_a_sev_guest_is_judged_by_its_contents_else_taken_as_private(kind: VmKind) -> None:
    assert isinstance(chosen(AtHand(kind=kind, read_pages=nothing)).source, ContentSource)
    blind = chosen(AtHand(kind=kind))
    assert blind.source.name == "all private"
    assert "upper limit" in blind.reason


def test_a_plain_guest_has_no_private_page_whatever_its_contents_look_like() -> None:
    choice = chosen(AtHand(kind=VmKind.PLAIN, read_pages=nothing))
    assert choice.source.name == "all shared"
    assert choice.reason == "right for a VM that encrypts nothing; this one is plain"


@pytest.mark.parametrize("kind", [VmKind.SEV_SNP, VmKind.TDX, VmKind.SW_PROTECTED])
def test_guest_memfd_without_a_record_is_unknown_and_no_bitmap_of_zeros(kind: VmKind) -> None:
    unknown = choose(AtHand(kind=kind, read_pages=nothing))
    assert isinstance(unknown, UnknownState)
    assert f"of a {kind} guest" in unknown.reason
    assert "guest_memfd" in unknown.reason


@pytest.mark.parametrize("name", [SourceName.ALL_PRIVATE, SourceName.ALL_SHARED])
def test_a_name_overrules_the_order(name: SourceName) -> None:
    everything = AtHand(kind=VmKind.SEV, bitmap=BITMAP, hypercalls=TRACKER, read_pages=nothing)
    choice = chosen(everything, name)
    assert isinstance(choice.source, ConstantSource)
    assert choice.source.name == name.replace("-", " ")
    assert choice.reason.startswith("asked for by name; ")


@pytest.mark.parametrize("name", ["bitmap", "hypercalls", "content"])
def test_a_named_source_that_is_not_there_is_an_error(name: str) -> None:
    with pytest.raises(NotSupported, match=f"there is no {name} "):
        choose(AtHand(kind=VmKind.SEV), SourceName(name))


def test_contents_asked_for_by_name_are_refused_where_they_say_nothing() -> None:
    with pytest.raises(NotSupported, match="guest_memfd"):
        choose(AtHand(kind=VmKind.SEV_SNP, read_pages=nothing), SourceName.CONTENT)
