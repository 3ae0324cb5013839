"""The encryption-state ioctls, revision by revision, as encoded on x86-64."""

from __future__ import annotations

import ctypes

import pytest

from kvmenc.uapi import (
    KVM_RESET_DIRTY_RINGS,
    NEVER_PROBE,
    REVISIONS,
    Kind,
    PageEncRevision,
    Polarity,
    Reset,
    SetSemantics,
    is_ambiguous,
    kvm_page_enc_bitmap,
    kvm_shared_pages_list,
    kvm_unencrypted_bitmap,
    revisions_answering,
)

# name: (GET, SET, RESET), as the postings' headers encode them
NUMBERS = {
    "rfc-2018": (0x4010AEBD, None, None),
    "v1-2019": (0x4018AEC2, 0x4018AEC3, None),
    "v2-2019": (0x4018AEC2, 0x4018AEC3, None),
    "repost-2020-02": (0x4018AEC2, 0x4018AEC3, 0x0000AEC4),
    "v5": (0x4018AEC5, 0x4018AEC6, 0x0000AEC7),
    "v6": (0x4018AEC5, 0x4018AEC6, 0x0000AEC7),
    "v7": (0x4018AEC6, 0x4018AEC7, None),
    "v8": (0x4018AEC6, 0x4018AEC7, None),
    "nov-2020": (0x4018AEC6, 0x4018AEC7, None),
    "v9": (0x4018AEC8, 0x4018AEC9, None),
    "interim-2021-01": (0x4018AEC8, 0x4018AEC9, None),
    "v10": (0x4018AEC8, 0x4018AEC9, None),
    "ibm-rfc-2021": (0x4018AEC6, 0x4018AEC7, None),
}

AS_PARAMETERS = pytest.mark.parametrize("revision", REVISIONS.values(), ids=lambda r: r.name)


def test_every_revision_has_the_numbers_of_its_posting() -> None:
    assert {r.name: (r.get, r.set, r.reset_ioctl) for r in REVISIONS.values()} == NUMBERS


def test_revisions_are_found_by_name_and_listed_oldest_first() -> None:
    assert list(REVISIONS) == [r.name for r in REVISIONS.values()]
    dates = [r.date for r in REVISIONS.values()]
    assert dates == sorted(dates)


@pytest.mark.parametrize(
    ("request_", "names"),
    [
        (0x4010AEBD, ["rfc-2018"]),
        (0x4018AEC2, ["v1-2019", "v2-2019", "repost-2020-02"]),
        (0x4018AEC5, ["v5", "v6"]),
        (0x4018AEC6, ["v7", "v8", "nov-2020", "ibm-rfc-2021"]),
        (0x4018AEC8, ["v9", "interim-2021-01", "v10"]),
        (0x4018AEC3, []),
        (0x4018AEC7, []),
        (0x0000AEC7, []),
    ],
)
def test_a_number_is_read_by_these_revisions(request_: int, names: list[str]) -> None:
    assert [r.name for r in revisions_answering(request_)] == names


@pytest.mark.parametrize(
    ("request_", "why"),
    [
        (0x4018AEC6, "SET in v5 and v6, GET from v7 on"),
        (0x4018AEC8, "GET of a bitmap in v9, of a list in v10"),
        (0x4018AEC9, "SET of a bitmap in v9, of a list in v10"),
    ],
)
def test_a_number_with_two_meanings_is_ambiguous(request_: int, why: str) -> None:
    assert is_ambiguous(request_), why


@pytest.mark.parametrize("request_", [0x4010AEBD, 0x4018AEC2, 0x4018AEC3, 0x4018AEC5, 0x4018AEC7])
def test_a_number_with_one_meaning_in_several_revisions_is_not(request_: int) -> None:
    assert not is_ambiguous(request_)


def test_reset_of_v5_and_v6_is_mainlines_reset_of_the_dirty_rings() -> None:
    assert REVISIONS["v5"].reset_ioctl == REVISIONS["v6"].reset_ioctl == KVM_RESET_DIRTY_RINGS
    assert "KVM_RESET_DIRTY_RINGS" in NEVER_PROBE[0xAEC7]


def test_every_reset_is_never_to_be_probed_and_nothing_else_is() -> None:
    resets = {r.reset_ioctl for r in REVISIONS.values() if r.reset_ioctl is not None}
    assert NEVER_PROBE.keys() == resets == {0xAEC4, 0xAEC7}


@AS_PARAMETERS
def test_no_ioctl_but_reset_acts_without_an_argument(revision: PageEncRevision) -> None:
    ioctls = [i for i in (revision.get, revision.set) if i is not None]
    assert all(i.size for i in ioctls)
    assert NEVER_PROBE.keys().isdisjoint(ioctls)


@AS_PARAMETERS
def test_the_argument_fits_the_kind(revision: PageEncRevision) -> None:
    structs = {
        (Kind.BITMAP, Polarity.SHARED): kvm_unencrypted_bitmap,
        (Kind.BITMAP, Polarity.PRIVATE): kvm_page_enc_bitmap,
        (Kind.LIST, Polarity.SHARED): kvm_shared_pages_list,
    }
    assert revision.get.argtype is structs[revision.kind, revision.polarity]


def test_bitmap_and_list_of_the_same_number_cannot_be_told_apart_by_size() -> None:
    assert ctypes.sizeof(kvm_page_enc_bitmap) == ctypes.sizeof(kvm_shared_pages_list)


@AS_PARAMETERS
def test_set_semantics_and_set_ioctl_go_together(revision: PageEncRevision) -> None:
    assert (revision.set is None) == (revision.set_semantics is SetSemantics.NONE)


@AS_PARAMETERS
def test_reset_by_ioctl_and_its_ioctl_go_together(revision: PageEncRevision) -> None:
    assert (revision.reset_ioctl is None) == (revision.reset is not Reset.BY_IOCTL)
