"""Private/shared from the kernel's bitmap or list, in every revision."""

from __future__ import annotations

import ctypes
import errno
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvmenc import uapi
from kvmenc.encstate import pageenc
from kvmenc.encstate.pageenc import Offer, PageEncSource, offered_revisions
from kvmenc.errors import HostError, InputError, IoctlError, NotSupported
from kvmenc.memory.slots import MemSlot
from tests.encstate.bits import bits_of
from tests.encstate.kernel import EncKernel, fake_kernel

if TYPE_CHECKING:
    from collections.abc import Callable

REVISIONS = list(uapi.REVISIONS)
BITMAPS = [name for name in REVISIONS if uapi.REVISIONS[name].kind == uapi.Kind.BITMAP]
LISTS = [name for name in REVISIONS if uapi.REVISIONS[name].kind == uapi.Kind.LIST]
BY_GFN = [name for name in BITMAPS if name != "rfc-2018"]

SLOTS = [MemSlot(0, 0, 100, 0), MemSlot(1, 0x111, 130, 0), MemSlot(1, 0x200, 64, 0, as_id=1)]


def source_of(kernel: EncKernel, revision: str) -> PageEncSource:
    return PageEncSource(kernel.vm, uapi.REVISIONS[revision])


def state(source: PageEncSource, slots: list[MemSlot]) -> list[list[int]]:
    return [bits_of(words, slot.npages) for slot, words in source.read(slots)]


# Reading ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("revision", REVISIONS)
def test_all_memory_is_private_at_first(revision: str) -> None:
    kernel, _ = fake_kernel(revision, SLOTS)
    assert state(source_of(kernel, revision), SLOTS) == [[1] * 100, [1] * 130, [1] * 64]


@pytest.mark.parametrize("revision", REVISIONS)
def test_a_page_known_to_be_shared_reads_0_and_its_neighbours_1(revision: str) -> None:
    kernel, guest = fake_kernel(revision, SLOTS)
    guest.set_range(0x113, 1, private=False)
    guest.set_range(99, 1, private=False)
    assert state(source_of(kernel, revision), SLOTS) == [
        [1] * 99 + [0],
        [1, 1, 0] + [1] * 127,
        [1] * 64,
    ]


flips = st.lists(st.tuples(st.integers(0, 0x250), st.integers(1, 200), st.booleans()), max_size=8)


@settings(max_examples=80, deadline=None)
@given(st.sampled_from(BITMAPS), flips)
def test_any_bitmap_reads_what_the_guest_announced(
    revision: str, script: list[tuple[int, int, bool]]
) -> None:
    kernel, guest = fake_kernel(revision, SLOTS)
    private = [1] * 0x400
    for gfn, npages, to_private in script:
        guest.set_range(gfn, npages, to_private)
        private[gfn : gfn + npages] = [int(to_private)] * npages
    expected = [private[slot.base_gfn : slot.base_gfn + slot.npages] for slot in SLOTS]
    assert state(source_of(kernel, revision), SLOTS) == expected


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(LISTS), st.lists(st.tuples(st.integers(0, 0x250), st.integers(1, 200))))
def test_any_list_reads_what_the_guest_announced(
    revision: str, shared: list[tuple[int, int]]
) -> None:
    """Up to what became shared: v10's own list goes wrong when a part of it turns back."""
    kernel = EncKernel(list_of([(start, start + npages) for start, npages in shared]))
    gfns = {gfn for start, npages in shared for gfn in range(start, start + npages)}
    expected = [
        [int(gfn not in gfns) for gfn in range(slot.base_gfn, slot.base_gfn + slot.npages)]
        for slot in SLOTS
    ]
    assert state(source_of(kernel, revision), SLOTS) == expected


@pytest.mark.parametrize("tail", [0, 0xFF])
@pytest.mark.parametrize("revision", BY_GFN)
def test_bits_past_the_last_page_are_0_whatever_was_in_the_buffer(revision: str, tail: int) -> None:
    """From v5 on the kernel keeps the caller's bits there; before, it sets them."""
    kernel, guest = fake_kernel(revision, SLOTS)
    guest.set_range(0, 70, private=False)
    source = source_of(kernel, revision)
    for npages in (128, 70, 1):  # the buffer of the larger slot is used again
        source._buffer.view(np.uint8).fill(tail)
        assert state(source, [MemSlot(0, 0, npages, 0)]) == [([0] * 70 + [1] * 58)[:npages]]


def test_an_inverted_bitmap_is_masked_after_it_was_inverted() -> None:
    """The kernel wrote the words' tails, of which nothing is known: here 0, shared's opposite."""
    slot = MemSlot(0, 0, 3, 0)

    def answer(_request: int, arg: int) -> int:
        given = uapi.kvm_unencrypted_bitmap.from_address(arg)
        ctypes.c_uint64.from_address(given.bitmap).value = 0b001
        return 0

    assert state(source_of(EncKernel(answer), "rfc-2018"), [slot]) == [[0, 1, 1]]


@pytest.mark.parametrize("revision", BITMAPS)
def test_what_a_kernel_does_not_write_counts_as_private(revision: str) -> None:
    silent = EncKernel(lambda _request, _arg: 0)
    assert state(source_of(silent, revision), SLOTS) == [[1] * 100, [1] * 130, [1] * 64]


def test_2018_asks_by_slot_and_address_space() -> None:
    asked = []

    def answer(_request: int, arg: int) -> int:
        asked.append(uapi.kvm_unencrypted_bitmap.from_address(arg).slot)
        return 0

    state(source_of(EncKernel(answer), "rfc-2018"), SLOTS)
    assert asked == [0, 1, 1 | 1 << 16]


# Chunks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("npages", [1, 64, 127, 128, 129, 256, 300])
@pytest.mark.parametrize("revision", BY_GFN)
def test_a_slot_is_read_in_chunks_that_join_without_a_seam(
    revision: str, npages: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pageenc, "CHUNK_PAGES", 128)
    slot = MemSlot(0, 0x35, npages, 0)
    kernel, guest = fake_kernel(revision, [slot])
    shared = [gfn for gfn in range(0x35, 0x35 + npages) if gfn * gfn % 7 < 3]
    for gfn in shared:
        guest.set_range(gfn, 1, private=False)
    expected = [int(gfn not in shared) for gfn in range(0x35, 0x35 + npages)]
    assert state(source_of(kernel, revision), [slot]) == [expected]
    assert len(kernel.requests) == -(-npages // 128)


def test_a_slot_larger_than_the_kernel_takes_at_once_is_read() -> None:
    """128 GiB and a page: in one piece the kernel says ENOMEM."""
    slot = MemSlot(0, 0x100000, (1 << 25) + 1, 0)
    kernel, guest = fake_kernel("v9", [slot])
    guest.set_range(slot.base_gfn + slot.npages - 1, 1, private=False)
    ((_, words),) = source_of(kernel, "v9").read([slot])
    assert (int(words[0]), int(words[-2]), int(words[-1])) == ((1 << 64) - 1, (1 << 64) - 1, 0)


def test_chunks_are_whole_words_and_small_enough() -> None:
    assert pageenc.CHUNK_PAGES % 64 == 0
    assert pageenc.CHUNK_PAGES <= 1 << 25


# Lists -----------------------------------------------------------------------------------------


def list_of(ranges: list[tuple[int, int]], count: int | None = None) -> Callable[[int, int], int]:
    """A kernel that has these shared ranges, and says that there are ``count``."""

    def answer(_request: int, arg: int) -> int:
        asked = uapi.kvm_shared_pages_list.from_address(arg)
        array = np.array(ranges, "<u8").reshape(-1, 2)
        if asked.size < array.nbytes:
            raise OSError(errno.E2BIG, "too many")
        ctypes.memmove(asked.buffer, array.tobytes(), array.nbytes)
        ctypes.c_int.from_address(asked.pnents).value = len(ranges) if count is None else count
        return 0

    return answer


def test_a_list_that_does_not_fit_is_asked_for_again_with_more_room() -> None:
    slot = MemSlot(0, 0, 4000, 0)
    kernel = EncKernel(list_of([(gfn, gfn + 1) for gfn in range(0, 4000, 2)]))
    source = source_of(kernel, "v10")
    assert state(source, [slot]) == [[0, 1] * 2000]
    assert len(kernel.requests) == 4  # 256, 512, 1024, 2048 entries
    assert state(source, [slot]) == [[0, 1] * 2000]
    assert len(kernel.requests) == 5


def test_a_list_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pageenc, "MAX_ENTRIES", 1024)

    def answer(_request: int, _arg: int) -> int:
        raise OSError(errno.E2BIG, "too many")

    kernel = EncKernel(answer)
    with pytest.raises(HostError, match="more than 1024 entries"):
        state(source_of(kernel, "v10"), SLOTS)
    assert len(kernel.requests) == 3


@pytest.mark.parametrize(
    ("ranges", "count", "what"),
    [
        ([], -1, "-1 entries where 256 fit"),
        ([], 257, "257 entries where 256 fit"),
        ([(1, 2), (5, 4)], None, "entry 1 runs from gfn 0x5 to 0x4"),
        ([(0, (1 << 52) + 1)], None, "entry 0 runs from gfn 0x0 to 0x10000000000001"),
        ([(1 << 63, (1 << 63) + 1)], None, "entry 0 runs"),
    ],
)
def test_a_list_that_makes_no_sense_is_refused_whole(
    ranges: list[tuple[int, int]], count: int | None, what: str
) -> None:
    kernel = EncKernel(list_of(ranges, count))
    with pytest.raises(HostError, match=f"makes no sense.*{what}.*is it v10?"):
        next(source_of(kernel, "v10").read(SLOTS))


def test_entries_that_the_kernel_counted_but_did_not_write_share_nothing() -> None:
    """v10 counts apart from its list. What an earlier reading left must not come back."""
    kernel = EncKernel(list_of([(0, 1), (2, 3)]))
    source = source_of(kernel, "v10")
    assert state(source, [MemSlot(0, 0, 4, 0)]) == [[0, 1, 0, 1]]
    kernel.answer = list_of([(0, 1)], count=2)
    assert state(source, [MemSlot(0, 0, 4, 0)]) == [[0, 1, 1, 1]]


def test_empty_and_overlapping_entries_are_no_trouble() -> None:
    """v10's list holds such."""
    kernel = EncKernel(list_of([(3, 9), (5, 5), (4, 6), (1, 2)]))
    assert state(source_of(kernel, "v10"), [MemSlot(0, 0, 10, 0)]) == [[1, 0, 1] + [0] * 6 + [1]]


@pytest.mark.parametrize("number", [errno.ENOMEM, errno.EFAULT, errno.EINVAL])
@pytest.mark.parametrize("revision", REVISIONS)
def test_a_failure_names_the_ioctl_and_the_errno(revision: str, number: int) -> None:
    def answer(_request: int, _arg: int) -> int:
        raise OSError(number, "no")

    with pytest.raises(IoctlError) as raised:
        state(source_of(EncKernel(answer), revision), SLOTS)
    assert raised.value.errno == number
    assert raised.value.ioctl == uapi.REVISIONS[revision].get.name


# The probe -------------------------------------------------------------------------------------


def kernel_with(answers: dict[int, int]) -> EncKernel:
    """Numbers and their errno (0: success); the others give ENOTTY."""

    def answer(request: int, _arg: int) -> int:
        number = answers.get(request, errno.ENOTTY)
        if number:
            raise OSError(number, "no")
        return 0

    return EncKernel(answer)


@pytest.mark.parametrize("revision", REVISIONS)
def test_a_kernel_offers_its_own_revision(revision: str) -> None:
    kernel, _ = fake_kernel(revision, [])
    offer = offered_revisions(kernel.vm)
    assert offer.choose(revision) is uapi.REVISIONS[revision]
    assert not offer.unclear


def test_the_probe_issues_get_numbers_only_each_once_and_with_null() -> None:
    kernel = kernel_with({})
    offered_revisions(kernel.vm)
    gets = {int(revision.get) for revision in uapi.REVISIONS.values()}
    assert sorted(kernel.requests) == sorted((number, 0) for number in gets)
    assert not gets & set(uapi.NEVER_PROBE)


def test_a_mainline_kernel_offers_none() -> None:
    offer = offered_revisions(kernel_with({}).vm)
    assert offer == Offer(candidates=(), unclear=())
    with pytest.raises(NotSupported, match=r"does not offer an encryption bitmap$"):
        offer.choose(None)
    with pytest.raises(NotSupported, match=r"does not offer revision v9 of the encryption bitmap$"):
        offer.choose("v9")


def test_a_kernel_with_v5_offers_v7_as_well_since_its_set_is_their_get() -> None:
    kernel, _ = fake_kernel("v5", [])
    names = [revision.name for revision in offered_revisions(kernel.vm).candidates]
    assert names == ["v5", "v6", "v7", "v8", "nov-2020", "ibm-rfc-2021"]


@pytest.mark.parametrize("revision", [name for name in REVISIONS if name != "rfc-2018"])
def test_without_a_name_revisions_that_share_a_number_are_refused_and_listed(revision: str) -> None:
    kernel, _ = fake_kernel(revision, [])
    offer = offered_revisions(kernel.vm)
    with pytest.raises(InputError, match="--enc-revision NAME") as raised:
        offer.choose(None)
    assert all(candidate.name in str(raised.value) for candidate in offer.candidates)


def test_without_a_name_the_only_candidate_is_taken() -> None:
    kernel, _ = fake_kernel("rfc-2018", [])
    assert offered_revisions(kernel.vm).choose(None).name == "rfc-2018"


def test_a_revision_that_is_not_offered_is_refused_and_the_others_are_named() -> None:
    kernel, _ = fake_kernel("v9", [])
    with pytest.raises(
        NotSupported, match=r"does not offer revision v5 .*it may have: v9, interim"
    ):
        offered_revisions(kernel.vm).choose("v5")


def test_a_name_that_does_not_exist_is_refused_with_those_that_do() -> None:
    with pytest.raises(
        InputError, match="no encryption bitmap revision 'v99'; there are: rfc-2018"
    ):
        Offer(candidates=(), unclear=()).choose("v99")


@pytest.mark.parametrize(("number", "what"), [(errno.EINVAL, "EINVAL"), (0, r"success \(0\)")])
def test_any_other_answer_is_unclear_and_said(number: int, what: str) -> None:
    offer = offered_revisions(kernel_with({0x4018AEC8: number}).vm)
    assert not offer.candidates
    with pytest.raises(NotSupported, match=f"not clear if .* v9 .*0x4018aec8, gives {what}$"):
        offer.choose("v9")


def test_a_vm_that_is_not_encrypted_is_a_clear_error() -> None:
    with pytest.raises(NotSupported, match=r"KVM_GET_PAGE_ENC_BITMAP.*ENOTTY.*this kind of VM"):
        state(source_of(kernel_with({}), "v9"), SLOTS)
