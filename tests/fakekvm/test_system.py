"""/dev/kvm, file descriptors and their lives, and the hosts."""

from __future__ import annotations

import errno
import mmap
import os
import struct

import pytest

from fakekvm import Host, Kernel, host_named, host_names
from fakekvm.revisions import REVISIONS
from tests.fakekvm import raw
from tests.fakekvm.raw import PAGE, Buffer, FakeMachine, Guest

# What a mainline host without SEV answers to KVM_CHECK_EXTENSION (measured on Linux 6.18).
MAINLINE = {
    10: 32764,
    118: 0,
    166: 0,
    168: 3,
    188: 1,
    189: 1,
    192: 1 << 20,
    197: 1,
    201: 1 << 12,
    206: 1,
    223: 1 << 20,
    225: 0,
    231: 1,
    232: 1,
    233: 0,
    234: 1,
    235: 1,
    236: 0,
    238: 1,
    244: 3,
}


def errno_of_open(host: Host, path: str = "/dev/kvm") -> int | None:
    with pytest.raises(OSError) as caught:  # noqa: PT011 - the errno is the result
        Kernel(host).open(path)
    return caught.value.errno


def test_a_mainline_host_has_the_measured_capabilities(fake: FakeMachine) -> None:
    kvm = fake.open()
    found = {cap: fake.ioctl(kvm, raw.CHECK_EXTENSION, cap) for cap in MAINLINE}
    assert found == MAINLINE


def test_hosts_that_do_not_let_one_in() -> None:
    assert errno_of_open(host_named("no-kvm")) == errno.ENOENT
    assert errno_of_open(host_named("no-rights")) == errno.EACCES
    assert errno_of_open(Host(), "/dev/sev") == errno.ENOENT


def test_a_host_of_no_known_name_is_refused_with_the_names() -> None:
    with pytest.raises(KeyError, match=r"mainline.*sev-v2-2019"):
        host_named("solaris")
    assert {f"sev-{name}" for name in REVISIONS} < set(host_names())


def test_the_system_answers_and_refuses_like_the_kernel(fake: FakeMachine) -> None:
    kvm = fake.open()
    assert fake.ioctl(kvm, raw.GET_API_VERSION) == 12
    assert fake.ioctl(kvm, raw.GET_API_VERSION, 1) == "EINVAL"
    assert fake.ioctl(kvm, raw.GET_VCPU_MMAP_SIZE) == 3 * PAGE
    assert fake.ioctl(kvm, raw.GET_VCPU_MMAP_SIZE, 1) == "EINVAL"


def test_unknown_requests_are_refused_by_kind_of_file_and_counted(fake: FakeMachine) -> None:
    guest = Guest(fake)
    kvm = fake.open()
    assert fake.ioctl(kvm, 0xAEFF) == "EINVAL"
    assert fake.ioctl(guest.vm, 0xAEFF) == "ENOTTY"
    assert fake.ioctl(guest.vm, 0xAEFF) == "ENOTTY"
    assert fake.ioctl(guest.vcpu, 0xAEFF) == "EINVAL"
    expected = {("system", 0xAEFF): 1, ("vm", 0xAEFF): 2, ("vcpu", 0xAEFF): 1}
    assert fake.kernel.unknown == expected


@pytest.mark.parametrize(
    ("name", "types"),
    [("mainline", {0}), ("sw-protected", {0, 1}), ("sev", {0, 2, 3}), ("snp", {0, 1, 2, 3, 4})],
)
def test_a_vm_is_of_a_type_that_the_host_has(name: str, types: set[int]) -> None:
    with FakeMachine(host_named(name)) as fake:
        kvm = fake.open()
        made = {t for t in range(7) if fake.ioctl(kvm, raw.CREATE_VM, t) != "EINVAL"}
        assert made == types
        assert fake.ioctl(kvm, raw.CREATE_VM, 1 << 32) == "EINVAL"


def test_a_descriptor_that_is_not_open_is_ebadf(fake: FakeMachine) -> None:
    kvm = fake.open()
    fake.close(kvm)
    assert fake.ioctl(kvm, raw.GET_API_VERSION) == "EBADF"
    with pytest.raises(OSError, match="Bad file descriptor"):
        fake.close(kvm)
    with pytest.raises(OSError, match="Bad file descriptor"):
        fake.kernel.load_guest(kvm, 0, [])


def test_descriptors_are_the_process_s_own_and_are_given_back() -> None:
    before = set(os.listdir("/proc/self/fd"))  # noqa: PTH208 - names are all that is wanted
    with FakeMachine() as fake:
        guest = Guest(fake, ring_bytes=PAGE)
        mine = {fake.open(), guest.vm, guest.vcpu}
        assert len(mine) == 3
        assert all(os.readlink(f"/proc/self/fd/{fd}") for fd in mine)  # noqa: PTH115
    guest.run_area.close()
    assert guest.ring is not None
    guest.ring.close()
    assert set(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_a_vcpu_lives_on_when_its_vm_is_closed(fake: FakeMachine) -> None:
    guest = Guest(fake)
    fake.close(guest.vm)
    assert guest.machine.ioctl(guest.vcpu, raw.RUN) == 0
    fake.close(guest.vcpu)


def test_a_closed_vcpu_still_takes_its_id(fake: FakeMachine) -> None:
    guest = Guest(fake)
    fake.close(guest.vcpu)
    assert fake.ioctl(guest.vm, raw.CREATE_VCPU, 0) == "EEXIST"
    assert isinstance(fake.ioctl(guest.vm, raw.CREATE_VCPU, 1), int)


def test_vcpu_ids_and_their_number_are_limited(fake: FakeMachine) -> None:
    vm = raw.new_vm(fake)
    assert fake.ioctl(vm, raw.CREATE_VCPU, 4096) == "EINVAL"
    assert fake.ioctl(vm, raw.CREATE_VCPU, 1 << 32) == "EINVAL"
    few = Host(capabilities={**Host().capabilities, 66: 2})
    with FakeMachine(few) as machine:
        vm = raw.new_vm(machine)
        made = [machine.ioctl(vm, raw.CREATE_VCPU, vcpu_id) for vcpu_id in (5, 6, 7)]
        assert [isinstance(result, int) for result in made] == [True, True, False]
        assert made[2] == "EINVAL"


def test_a_vcpu_is_mapped_like_any_file_and_a_vm_is_not(fake: FakeMachine) -> None:
    guest = Guest(fake)
    assert guest.run_area[:] == bytes(3 * PAGE)
    with pytest.raises(OSError, match="No such device"):
        mmap.mmap(guest.vm, PAGE)


def test_another_process_gets_eio_from_a_vm_but_not_from_the_system(fake: FakeMachine) -> None:
    guest = Guest(fake)
    kvm = fake.open()
    pid = os.fork()
    if pid == 0:
        got = [fake.ioctl(fd, raw.CHECK_EXTENSION, 10) for fd in (kvm, guest.vm, guest.vcpu)]
        os._exit(0 if got == [32764, "EIO", "EIO"] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert fake.ioctl(guest.vm, raw.CHECK_EXTENSION, 10) == 32764


@pytest.mark.parametrize(("name", "null"), [("mainline", "ENOTTY"), ("sev", 0), ("snp", 0)])
def test_the_null_encrypt_op_tells_whether_the_host_has_sev(name: str, null: int | str) -> None:
    with FakeMachine(host_named(name)) as fake:
        vm = raw.new_vm(fake)
        assert fake.ioctl(vm, raw.MEMORY_ENCRYPT_OP) == null
        if null == 0:
            assert fake.ioctl(vm, raw.MEMORY_ENCRYPT_OP, 8) == "EFAULT"
            assert fake.ioctl(vm, raw.MEMORY_ENCRYPT_OP, Buffer(b"\xff" * 24)) == "EINVAL"


def supported_leaves(fake: FakeMachine, room: int) -> dict[int, tuple[int, ...]] | raw.Result:
    table = Buffer(struct.pack("<II", room, 0) + bytes(40 * room))
    result = fake.ioctl(fake.open(), raw.GET_SUPPORTED_CPUID, table)
    if result != 0:
        return result
    count = int.from_bytes(table.bytes[:4], "little")
    leaves = [struct.unpack_from("<7I", table.bytes, 8 + 40 * n) for n in range(count)]
    return {leaf[0]: leaf[3:] for leaf in leaves}


def test_the_encryption_leaf_of_cpuid_is_there_on_sev_hosts_only() -> None:
    with FakeMachine(host_named("sev")) as sev, FakeMachine() as plain:
        leaves = supported_leaves(sev, 16)
        assert isinstance(leaves, dict)
        assert leaves[0x8000001F][0] & 2
        assert leaves[0x8000001F][1] & 63 == 51
        assert leaves[0][1:] == tuple(struct.unpack("<3I", b"AuthcAMDenti"))
        without = supported_leaves(plain, 16)
        assert isinstance(without, dict)
        assert 0x8000001F not in without
        assert supported_leaves(sev, 1) == "E2BIG"
        assert sev.ioctl(sev.open(), raw.GET_SUPPORTED_CPUID) == "EFAULT"
