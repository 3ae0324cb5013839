"""Memslots: the kernel's refusals, one by one. ``test_against_kernel`` compares their order."""

from __future__ import annotations

import pytest

from fakekvm import Host, host_named
from tests.fakekvm import raw
from tests.fakekvm.raw import GUEST_MEMFD, LOG, PAGE, READONLY, Area, Buffer, FakeMachine, Guest

AREA = Area(16)
AT = AREA.address
TOP = 1 << 47

#: What is asked for beside a slot of 16 pages at 0, and the answer.
BESIDE = {
    "a slot": ((1, 0, 0x100000, PAGE, AT), 0),
    "read-only and logged": ((1, LOG | READONLY, 0x100000, PAGE, AT), 0),
    "the last slot id": ((32763, 0, 0x100000, PAGE, AT), 0),
    "a slot id too high": ((32764, 0, 0x100000, PAGE, AT), "EINVAL"),
    "another address space": ((1 << 16, 0, 0x100000, PAGE, AT), "EINVAL"),
    "a flag of the other ioctl": ((1, GUEST_MEMFD, 0x100000, PAGE, AT), "EINVAL"),
    "an unknown flag": ((1, 8, 0x100000, PAGE, AT), "EINVAL"),
    "a size of part of a page": ((1, 0, 0x100000, 100, AT), "EINVAL"),
    "an unaligned gpa": ((1, 0, 0x100008, PAGE, AT), "EINVAL"),
    "an unaligned address": ((1, 0, 0x100000, PAGE, AT + 8), "EINVAL"),
    "the end of user memory": ((1, 0, 0x100000, PAGE, TOP - 2 * PAGE), 0),
    "past the end of user memory": ((1, 0, 0x100000, 2 * PAGE, TOP - 2 * PAGE), "EINVAL"),
    "a gpa that wraps around": ((1, 0, (1 << 64) - PAGE, PAGE, AT), "EINVAL"),
    "the highest gpa": ((1, 0, (1 << 52) - PAGE, PAGE, AT), 0),
    "a gpa that cannot be mapped": ((1, 0, 1 << 52, PAGE, AT), "EINVAL"),
    "the most pages": ((1, 0, 1 << 45, (1 << 43) - PAGE, PAGE), 0),
    "too many pages": ((1, 0, 1 << 45, 1 << 43, PAGE), "EINVAL"),
    "deleting what is not there": ((1, 0, 0, 0, 0), "EINVAL"),
    "over the first page of another": ((1, 0, 0, PAGE, AT), "EEXIST"),
    "over the last page of another": ((1, 0, 15 * PAGE, 2 * PAGE, AT), "EEXIST"),
    "right behind another": ((1, 0, 16 * PAGE, PAGE, AT), 0),
    "the same again": ((0, LOG, 0, 16 * PAGE, AT), 0),
    "another size": ((0, LOG, 0, 15 * PAGE, AT), "EINVAL"),
    "another address of the memory": ((0, LOG, 0, 16 * PAGE, AT + PAGE), "EINVAL"),
    "made read-only": ((0, LOG | READONLY, 0, 16 * PAGE, AT), "EINVAL"),
    "moved": ((0, LOG, 0x100000, 16 * PAGE, AT), 0),
    "moved by less than its size": ((0, LOG, PAGE, 16 * PAGE, AT), 0),
    "moved past what can be mapped": ((0, LOG, 1 << 52, 16 * PAGE, AT), "EINVAL"),
    "no longer logged": ((0, 0, 0, 16 * PAGE, AT), 0),
    "deleted": ((0, 0, 0, 0, 0), 0),
}


def set_region(fake: FakeMachine, vm: int, *form: int) -> raw.Result:
    return fake.ioctl(vm, raw.SET_REGION, raw.region(*form))


@pytest.mark.parametrize(
    ("form", "expected"), [pytest.param(*it, id=name) for name, it in BESIDE.items()]
)
def test_beside_a_slot_of_16_pages_at_0(
    fake: FakeMachine, form: tuple[int, ...], expected: raw.Result
) -> None:
    vm = raw.new_vm(fake)
    assert set_region(fake, vm, 0, LOG, 0, 16 * PAGE, AT) == 0
    assert set_region(fake, vm, *form) == expected


def test_a_deleted_slot_leaves_its_place_and_its_log(fake: FakeMachine) -> None:
    guest = Guest(fake)
    guest.write([5])
    assert guest.region(npages=0) == 0
    assert guest.get_log() == "ENOENT"
    assert guest.region(slot=7) == 0
    assert guest.get_log(slot=7) == "[]"


def test_moving_a_slot_onto_another_is_refused_and_changes_nothing(fake: FakeMachine) -> None:
    guest = Guest(fake)
    assert guest.region(slot=1, gfn=0x1000) == 0
    assert guest.region(slot=1, gfn=50) == "EEXIST"
    assert guest.region(slot=2, gfn=0x1000) == "EEXIST"


def test_with_two_address_spaces_the_same_gfns_can_be_used_twice() -> None:
    two = Host(capabilities={**Host().capabilities, 118: 2})
    with FakeMachine(two) as fake:
        guest = Guest(fake)
        other = 1 << 16
        assert guest.region(slot=other) == 0
        guest.write([5])
        assert (guest.get_log(), guest.get_log(slot=other)) == ("[5]", "[]")
        assert guest.get_log(slot=2 << 16) == "EINVAL"


def test_a_guest_memfd_slot_cannot_be_logged_or_read_only(fake: FakeMachine) -> None:
    vm = raw.new_vm(fake)
    memfd = raw.number(fake.ioctl(vm, raw.CREATE_GUEST_MEMFD, raw.guest_memfd(16 * PAGE)))

    def slot(flags: int) -> raw.Result:
        form = raw.region2(0, flags, 0, PAGE, AT, 0, memfd)
        return fake.ioctl(vm, raw.SET_REGION2, form)

    assert slot(GUEST_MEMFD | LOG) == "EINVAL"
    assert slot(GUEST_MEMFD | READONLY) == "EINVAL"
    assert slot(GUEST_MEMFD) == 0
    assert slot(GUEST_MEMFD) == "EINVAL", "such a slot cannot be changed, not even to itself"
    assert set_region(fake, vm, 0, LOG, 0, PAGE, AT) == "EINVAL"


def test_a_guest_memfd_is_bound_once_and_free_again_after(fake: FakeMachine) -> None:
    vm = raw.new_vm(fake)
    memfd = raw.number(fake.ioctl(vm, raw.CREATE_GUEST_MEMFD, raw.guest_memfd(16 * PAGE)))

    def slot(key: int, gfn: int, npages: int, page: int) -> raw.Result:
        size = npages * PAGE
        form = raw.region2(key, GUEST_MEMFD, gfn * PAGE, size, AT, page * PAGE, memfd)
        return fake.ioctl(vm, raw.SET_REGION2, form)

    assert slot(0, 0, 4, 0) == 0
    assert slot(1, 100, 4, 3) == "EINVAL"
    assert slot(1, 100, 4, 13) == "EINVAL", "past its end"
    assert slot(1, 100, 4, 4) == 0
    assert slot(0, 0, 0, 0) == 0
    assert slot(2, 200, 4, 0) == 0
    assert fake.ioctl(vm, raw.SET_REGION2, raw.region2(3, 4, 1 << 40, PAGE, AT, 0, vm)) == "EINVAL"
    assert (
        fake.ioctl(vm, raw.SET_REGION2, raw.region2(3, 4, 1 << 40, PAGE, AT, 0, -1 & 0xFFFFFFF))
        == "EBADF"
    )


@pytest.mark.parametrize(
    ("name", "request_", "expected"),
    [
        ("sev-v2-2019", raw.SET_REGION2, "ENOTTY"),
        ("sev-v2-2019", raw.CREATE_GUEST_MEMFD, "ENOTTY"),
        ("sev-v2-2019", raw.RESET_RINGS, "ENOTTY"),
        ("mainline", raw.SET_REGION2, "EFAULT"),
        ("mainline", raw.SET_ATTRIBUTES, "ENOTTY"),
        ("snp", raw.SET_ATTRIBUTES, "EFAULT"),
    ],
)
def test_a_request_is_known_where_its_capability_is(
    name: str, request_: int, expected: raw.Result
) -> None:
    with FakeMachine(host_named(name)) as fake:
        assert fake.ioctl(raw.new_vm(fake), request_) == expected


def test_memory_attributes_can_be_set_for_private_memory_only() -> None:
    def attributes(address: int, size: int, value: int, flags: int = 0) -> Buffer:
        return Buffer(b"".join(n.to_bytes(8, "little") for n in (address, size, value, flags)))

    with FakeMachine(host_named("snp")) as fake:
        vm = raw.new_vm(fake, vm_type=4)
        good = attributes(0x1000, 0x2000, 8)
        assert fake.ioctl(vm, raw.SET_ATTRIBUTES, good) == 0
        for wrong in (
            attributes(0x1000, 0x2000, 8, flags=1),
            attributes(0x1000, 0x2000, 4),
            attributes(0x1000, 0, 8),
            attributes((1 << 64) - PAGE, 2 * PAGE, 8),
            attributes(0x1008, 0x2000, 8),
            attributes(0x1000, 0x2008, 8),
        ):
            assert fake.ioctl(vm, raw.SET_ATTRIBUTES, wrong) == "EINVAL"
        assert fake.ioctl(raw.new_vm(fake), raw.SET_ATTRIBUTES, good) == "EINVAL"


@pytest.mark.parametrize(("vm_type", "expected"), [(0, 0), (2, 0), (3, "EINVAL"), (4, "EINVAL")])
def test_vms_with_protected_state_have_no_read_only_slots(
    vm_type: int, expected: raw.Result
) -> None:
    with FakeMachine(host_named("snp")) as fake:
        vm = raw.new_vm(fake, vm_type)
        assert set_region(fake, vm, 0, READONLY, 0, PAGE, AT) == expected
