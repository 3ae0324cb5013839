"""A call that is not the recorded one is an error that shows both, and is not forgotten."""

from __future__ import annotations

import ctypes
import errno
import os
import re
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np
import pytest

from fakekvm import host_named
from kvmenc import uapi
from kvmenc.backend.fake import FakeBackend
from kvmenc.backend.replay import ReplayBackend
from kvmenc.errors import HostError, InputError, IoctlError, ReplayDivergence
from kvmenc.kvm import KvmSystem
from kvmenc.memory.slots import MemSlot
from tests.backend.recordings import ioctls, record, replay, rewritten

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import Any

    from kvmenc.backend import Backend
    from kvmenc.kvm import Vm

    Step = Callable[[Backend, Vm], object]

AREA = ctypes.create_string_buffer(5 * 4096)
SLOT = MemSlot(7, 0x100, 3, -(-ctypes.addressof(AREA) // 4096) * 4096)
DIRTY = np.array([0b101], "<u8")


def log(_backend: Backend, vm: Vm) -> bytes:
    return vm.dirty_log(SLOT).tobytes()


def clear(_backend: Backend, vm: Vm) -> None:
    vm.clear_dirty_log(SLOT, DIRTY)


def of_slot(slot: MemSlot) -> Step:
    def step(_backend: Backend, vm: Vm) -> None:
        with suppress(HostError):
            vm.dirty_log(slot)

    return step


def mapped(length: int) -> Step:
    def step(backend: Backend, vm: Vm) -> None:
        fd = vm.ioctl(uapi.KVM_CREATE_VCPU, 3)
        backend.mmap(fd, length, 0).close()
        backend.close(fd)

    return step


def opened(path: str) -> Step:
    def step(backend: Backend, _vm: Vm) -> None:
        backend.close(backend.open(path, os.O_RDONLY))

    return step


def encrypt_op(argument: int) -> Step:
    def step(_backend: Backend, vm: Vm) -> None:
        with suppress(HostError):
            vm.ioctl(uapi.KVM_MEMORY_ENCRYPT_OP, argument)

    return step


def sev_command(number: int, fd: int) -> Step:
    def step(_backend: Backend, vm: Vm) -> None:
        command = uapi.kvm_sev_cmd(id=number, sev_fd=fd)
        with suppress(HostError):
            vm.ioctl(uapi.KVM_MEMORY_ENCRYPT_OP, ctypes.addressof(command))

    return step


def program(*steps: Step) -> Callable[[Backend], None]:
    def run(backend: Backend) -> None:
        with KvmSystem.open(backend) as system, system.create_vm() as vm:
            vm.enable_manual_protect()
            vm.set_slot(SLOT)
            for step in steps:
                step(backend, vm)

    return run


ANOTHER = MemSlot(8, 0x100, 3, SLOT.userspace_addr)
CASES: dict[str, tuple[Step, Step, str]] = {
    "another ioctl": (
        log,
        clear,
        r"recorded KVM_GET_DIRTY_LOG\(fd 1, slot=7\), called KVM_CLEAR_DIRTY_LOG\(fd 1, slot=7,",
    ),
    "a field": (
        of_slot(SLOT),
        of_slot(ANOTHER),
        r"called KVM_GET_DIRTY_LOG\(fd 1, slot=8\): arg\.slot: recorded 7, called 8",
    ),
    "bytes pointed at": (
        clear,
        lambda _backend, vm: vm.clear_dirty_log(SLOT, np.array([0b111], "<u8")),
        r"arg\.dirty_bitmap: 1 bytes differ, from byte 0: recorded 0500\w*, called 0700",
    ),
    "a size": (
        lambda _backend, vm: vm.clear_dirty_log(SLOT, np.zeros(2, "<u8"), npages=3),
        lambda _backend, vm: vm.clear_dirty_log(SLOT, np.zeros(2, "<u8"), npages=65),
        r"arg\.num_pages: recorded 3, called 65; arg\.dirty_bitmap: recorded 8 bytes, called with",
    ),
    "an integer": (
        lambda _backend, vm: vm.check_extension(10),
        lambda _backend, vm: vm.check_extension(11),
        r"recorded KVM_CHECK_EXTENSION\(fd 1, 10\), called KVM_CHECK_EXTENSION\(fd 1, 11\)",
    ),
    "a mapping": (
        mapped(12288),
        mapped(8192),
        r"recorded mmap\(fd 2, 12288 bytes from 0\), called mmap\(fd 2, 8192 .*length: recorded",
    ),
    "a path": (
        opened("/dev/sev"),
        opened("/dev/kvm"),
        r"recorded open\(/dev/sev, 0x0\), called open\(/dev/kvm, 0x0\): path: recorded /dev/sev",
    ),
    "NULL": (
        encrypt_op(0),
        sev_command(uapi.KVM_SEV_INIT, -1),
        r"recorded KVM_MEMORY_ENCRYPT_OP\(fd 1, NULL\), called KVM_MEMORY_ENCRYPT_OP KVM_SEV_INIT",
    ),
    "an SEV command": (
        sev_command(uapi.KVM_SEV_SEND_FINISH, -1),
        sev_command(uapi.KVM_SEV_SEND_CANCEL, -1),
        r"SEND_FINISH\(fd 1, id=11\), .* KVM_SEV_SEND_CANCEL\(fd 1, id=21\): arg\.id: recorded 11,",
    ),
    "a call too many": (
        lambda _backend, _vm: None,
        log,
        r"recorded close\(fd 1\), called KVM_GET_DIRTY_LOG\(fd 1, slot=7\): another call",
    ),
    "a call too few": (log, lambda _backend, _vm: None, r"recorded KVM_GET_.*, called close\(fd 1"),
}


@pytest.mark.parametrize("case", CASES)
def test_both_calls_are_shown(case: str, tmp_path: Path) -> None:
    now, then, text = CASES[case]
    path = tmp_path / "a.recording"
    record(path, FakeBackend(host_named("sev")), program(now))
    replay(path, program(now))
    with pytest.raises(ReplayDivergence, match=text) as caught:
        replay(path, program(then))
    message = str(caught.value)
    assert message.startswith(f"{path}: the replay diverges at call ")
    assert message.isprintable()
    assert isinstance(caught.value, InputError)
    assert caught.value.exit_code == 4
    line = int(re.findall(r"\(line (\d+)\)", message)[0])
    assert 2 <= line < 20


def test_a_struct_elsewhere_in_memory_is_the_same_call(tmp_path: Path) -> None:
    """So is another number of a descriptor: what differs from run to run is not compared."""
    path = tmp_path / "a.recording"

    def use(backend: Backend) -> None:
        fd = backend.open("/dev/sev", os.O_RDONLY)
        program(sev_command(uapi.KVM_SEV_GUEST_STATUS, fd), log, clear)(backend)
        backend.close(fd)

    record(path, FakeBackend(host_named("sev")), use)
    kept, held = [ctypes.create_string_buffer(5000)], [os.open("/dev/null", os.O_RDONLY)]
    replay(path, use)
    del kept
    os.close(held[0])

    def without(backend: Backend) -> None:
        backend.open("/dev/sev", os.O_RDONLY)
        program(sev_command(uapi.KVM_SEV_GUEST_STATUS, -1))(backend)

    with pytest.raises(ReplayDivergence, match=r"arg\.sev_fd: recorded 0, called 0xffffffff"):
        replay(path, without)


def test_calls_that_were_not_made_are_reported_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "a.recording"
    record(path, FakeBackend(host_named("sev")), program(log))
    with pytest.raises(ReplayDivergence, match=r"9 recorded calls were not made; the first: open"):
        replay(path, lambda _backend: None)


def test_an_error_of_the_program_is_not_hidden_by_what_is_left(tmp_path: Path) -> None:
    path = tmp_path / "a.recording"
    record(path, FakeBackend(host_named("sev")), program(log))
    with pytest.raises(ZeroDivisionError):
        replay(path, lambda _backend: 1 // 0)


def test_a_divergence_that_the_program_swallows_comes_again_and_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "a.recording"
    record(path, FakeBackend(host_named("sev")), program(log))
    backend = ReplayBackend(path)
    with pytest.raises(ReplayDivergence) as first:
        program(clear)(backend)
    for again in (lambda: backend.open("/dev/kvm", os.O_RDWR), backend.finish):
        with pytest.raises(ReplayDivergence) as caught:
            again()
        assert str(caught.value) == str(first.value)


def test_an_ioctl_that_is_not_in_the_table_is_kept_with_its_struct_and_marked(
    tmp_path: Path,
) -> None:
    unknown = 0x4008AE99

    def use(backend: Backend, value: int = 5) -> None:
        argument = ctypes.c_uint64(value)
        with KvmSystem.open(backend) as system, pytest.raises(OSError, match=r"Errno (22|25)"):
            system.backend.ioctl(system.fd, unknown, ctypes.addressof(argument))

    path = tmp_path / "a.recording"
    for contents in (False, True):  # it may hold anything
        record(path, FakeBackend(host_named("sev")), use, contents=contents)
        (call,) = ioctls(path, unknown)
        assert (call.known, call.name) == (False, "ioctl 0x4008ae99")
        assert call.before["arg"].data == ((5).to_bytes(8, "little") if contents else None)
        assert bool(call.before["arg"].digests) != contents
    # It may hold an address, so it is not compared.
    replay(path, lambda backend: use(backend, 6))


def test_an_address_that_is_not_mapped_is_refused_again(tmp_path: Path) -> None:
    def use(backend: Backend) -> None:
        with KvmSystem.open(backend) as system, system.create_vm() as vm:
            for address in (0x1000, 2**47):
                with pytest.raises(IoctlError) as caught:
                    vm.ioctl(uapi.KVM_GET_DIRTY_LOG, address)
                assert caught.value.errno == errno.EFAULT

    path = tmp_path / "a.recording"
    record(path, FakeBackend(host_named("sev")), use)
    replay(path, use)


def test_no_more_is_written_than_the_caller_has_room_for(tmp_path: Path) -> None:
    """Whatever a file claims that the kernel wrote."""
    path = tmp_path / "a.recording"
    record(path, FakeBackend(host_named("sev")), program(log))

    def longer(lines: list[Any]) -> None:
        (line,) = [it for it in lines if it.get("name") == "KVM_GET_DIRTY_LOG"]
        line["after"]["arg.dirty_bitmap"] = {"nbytes": 12, "data": "AAAAAAAAAAAAAAAA"}

    rewritten(path, longer)
    with pytest.raises(ReplayDivergence, match=r"wrote 12 bytes of arg\.dirty_bitmap: none here"):
        replay(path, program(log))


def test_what_only_goes_in_is_never_written_to(tmp_path: Path) -> None:
    path = tmp_path / "a.recording"
    record(path, FakeBackend(host_named("sev")), program(clear))

    def written(lines: list[Any]) -> None:
        (line,) = [it for it in lines if it.get("name") == "KVM_CLEAR_DIRTY_LOG"]
        line["after"] = {"arg.dirty_bitmap": {"nbytes": 8, "data": "//////////8="}}

    rewritten(path, written)
    with pytest.raises(ReplayDivergence, match=r"arg\.dirty_bitmap"):
        replay(path, program(clear))
    assert DIRTY.tolist() == [0b101]
