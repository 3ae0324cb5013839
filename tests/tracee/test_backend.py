"""What crosses into another process: structs and what they point to; and what never does."""

from __future__ import annotations

import ctypes
import errno
import os
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvmenc import uapi
from kvmenc.backend.tracee import Request, TraceeBackend
from kvmenc.encstate.pageenc import PageEncSource
from kvmenc.kvm import Vm
from kvmenc.memory.slots import MemSlot
from kvmenc.tracee import Copy, Span, SystemCall, Target
from tests.encstate.bits import bits_of
from tests.encstate.kernel import fake_kernel

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

VM_FD, KVM_FD = 10, 9
SLOTS = [MemSlot(0, 0, 100, 0), MemSlot(1, 0x111, 130, 0), MemSlot(1, 0x200, 64, 0, as_id=1)]


class Injector:
    """Stands for one: the "other process" is a part of our own memory, and ``answer`` its kernel.

    Addresses outside of that part are bad addresses there.
    """

    def __init__(self, answer: Callable[[int, int], int]) -> None:
        self.target = Target(os.getpid(), VM_FD, KVM_FD, 0, frozenset())
        self.stops: list[list[SystemCall]] = []
        self._answer = answer
        self._memory = np.zeros(1 << 20, np.uint8)

    def reserve(self, nbytes: int) -> int:
        assert nbytes <= self._memory.nbytes
        return self._memory.ctypes.data

    def copy(self, spans: Sequence[Span]) -> Copy:
        return Copy(os.getpid(), spans)

    def run(self, calls: Sequence[SystemCall]) -> list[int]:
        self.stops.append(list(calls))
        return [self._result(*call.args) for call in calls]

    def _result(self, fd: int, request: int, arg: int) -> int:
        assert fd in (VM_FD, KVM_FD)
        if request in (uapi.KVM_CHECK_EXTENSION, uapi.KVM_GET_API_VERSION):
            return self._answer(request, arg)
        self._check_addresses(request, arg)
        try:
            return self._answer(request, arg)
        except OSError as error:
            return -(error.errno or 0)

    def _check_addresses(self, request: int, arg: int) -> None:
        first = self._memory.ctypes.data
        valid = range(first, first + self._memory.nbytes)
        assert arg in valid
        struct = {16: uapi.kvm_dirty_log, 24: uapi.kvm_page_enc_bitmap}[request >> 16 & 0x3FFF]
        if request == uapi.REVISIONS["v10"].get and struct is uapi.kvm_page_enc_bitmap:
            return  # the test says which of two structs it is
        last = struct._fields_[-1][0]
        assert getattr(struct.from_address(arg), last) in valid


def backend_on(
    answer: Callable[[int, int], int], revision: str | None = None
) -> tuple[TraceeBackend, Injector]:
    injector = Injector(answer)
    chosen = uapi.REVISIONS[revision] if revision else None
    return TraceeBackend(injector, SLOTS, chosen), injector  # type: ignore[arg-type]


def never(_request: int, _arg: int) -> int:
    raise AssertionError("it reached the kernel")


def dirty_kernel(bits: dict[int, bytes]) -> Callable[[int, int], int]:
    """KVM_GET_DIRTY_LOG by slot; writes whole words, no more."""

    def answer(request: int, arg: int) -> int:
        assert request == uapi.KVM_GET_DIRTY_LOG
        log = uapi.kvm_dirty_log.from_address(arg)
        if log.slot not in bits:
            raise OSError(errno.ENOENT, "no such slot")
        ctypes.memmove(log.dirty_bitmap, bits[log.slot], len(bits[log.slot]))
        return 0

    return answer


def ask(backend: TraceeBackend, key: int, nwords: int) -> np.ndarray:
    words = np.full(nwords, 0x1111, "<u8")
    log = uapi.kvm_dirty_log(slot=key)
    log.dirty_bitmap = words.ctypes.data
    backend.ioctl(VM_FD, uapi.KVM_GET_DIRTY_LOG, ctypes.addressof(log))
    assert log.dirty_bitmap == words.ctypes.data, "the caller's struct is not to change"
    return words


def test_a_slots_bitmap_comes_back_and_not_a_byte_more() -> None:
    backend, _ = backend_on(dirty_kernel({0: bytes(range(16))}))
    words = ask(backend, 0, 3)
    assert words[:2].tobytes() == bytes(range(16))
    assert words[2] == 0x1111


@given(st.lists(st.sampled_from(SLOTS), min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_many_slots_come_back_from_one_stop(slots: list[MemSlot], rng: np.random.Generator) -> None:
    contents = {slot.key: rng.randbytes(-(-slot.npages // 64) * 8) for slot in SLOTS}  # type: ignore[attr-defined]
    backend, injector = backend_on(dirty_kernel(contents))
    words = [np.zeros(len(contents[slot.key]) // 8, "<u8") for slot in slots]
    logs = [uapi.kvm_dirty_log(slot=slot.key) for slot in slots]
    for log, bitmap in zip(logs, words, strict=True):
        log.dirty_bitmap = bitmap.ctypes.data
    requests = [Request(VM_FD, uapi.KVM_GET_DIRTY_LOG, ctypes.addressof(log)) for log in logs]
    assert backend.ioctls(requests) == [0] * len(slots)
    assert [bitmap.tobytes() for bitmap in words] == [contents[slot.key] for slot in slots]
    assert len(injector.stops) == 1


def test_one_that_fails_leaves_the_others_results() -> None:
    backend, _ = backend_on(dirty_kernel({0: bytes(16)}))
    words = [np.full(3, 0x1111, "<u8") for _ in range(2)]
    logs = [uapi.kvm_dirty_log(slot=key) for key in (SLOTS[1].key, 0)]
    for log, bitmap in zip(logs, words, strict=True):
        log.dirty_bitmap = bitmap.ctypes.data
    requests = [Request(VM_FD, uapi.KVM_GET_DIRTY_LOG, ctypes.addressof(log)) for log in logs]
    assert backend.ioctls(requests) == [-errno.ENOENT, 0]
    assert [bitmap.tolist() for bitmap in words] == [[0x1111] * 3, [0, 0, 0x1111]]


def test_integers_go_through_as_they_are() -> None:
    backend, injector = backend_on(lambda _request, arg: arg + 1)
    assert backend.ioctl(VM_FD, uapi.KVM_CHECK_EXTENSION, 168) == 169
    assert injector.stops == [[SystemCall(uapi.SYS_ioctl, (VM_FD, uapi.KVM_CHECK_EXTENSION, 168))]]


@pytest.mark.parametrize("revision", uapi.REVISIONS)
def test_every_revision_of_the_encryption_bitmap_reads_as_in_the_process_itself(
    revision: str,
) -> None:
    kernel, guest = fake_kernel(revision, SLOTS)
    for gfn, npages in ((0x113, 1), (99, 1), (0x120, 70)):
        guest.set_range(gfn, npages, private=False)
    there, _ = backend_on(kernel.answer, revision)

    def state(vm: Vm) -> list[list[int]]:
        source = PageEncSource(vm, uapi.REVISIONS[revision])
        return [bits_of(words, slot.npages) for slot, words in source.read(SLOTS)]

    assert state(Vm(there, VM_FD, 0)) == state(kernel.vm)


def errno_of(backend: TraceeBackend, fd: int, request: int, arg: int) -> int | None:
    with pytest.raises(OSError, match="Errno") as caught:
        backend.ioctl(fd, request, arg)
    return caught.value.errno


READING = {
    uapi.KVM_GET_API_VERSION,
    uapi.KVM_CHECK_EXTENSION,
    uapi.KVM_GET_VCPU_MMAP_SIZE,
    uapi.KVM_GET_DIRTY_LOG,
}


@settings(max_examples=300)
@given(st.integers(0, 0xFFFF_FFFF) | st.integers(0xAE00, 0xAEFF))
def test_whatever_does_not_only_read_never_reaches_the_target(request: int) -> None:
    backend, _ = backend_on(never)
    if request not in READING:
        assert errno_of(backend, VM_FD, request, 0) == errno.EPERM


@pytest.mark.parametrize(
    "request_", [*uapi.NEVER_PROBE, uapi.KVM_CLEAR_DIRTY_LOG, uapi.REVISIONS["v7"].get]
)
def test_what_takes_or_may_mean_something_else_never_reaches_the_target(request_: int) -> None:
    backend, _ = backend_on(never, "v10")
    assert errno_of(backend, VM_FD, request_, 0) == errno.EPERM


def test_one_refused_request_keeps_all_from_being_issued() -> None:
    backend, injector = backend_on(never)
    good = Request(VM_FD, uapi.KVM_CHECK_EXTENSION, 1)
    with pytest.raises(PermissionError):
        backend.ioctls([good, Request(VM_FD, uapi.KVM_CREATE_VM, 0)])
    assert not injector.stops


def test_a_slot_of_unknown_size_is_refused_before_the_kernel_could_overrun_a_buffer() -> None:
    backend, _ = backend_on(never)
    log = uapi.kvm_dirty_log(slot=7)
    address = ctypes.addressof(log)
    assert errno_of(backend, VM_FD, uapi.KVM_GET_DIRTY_LOG, address) == errno.ENOENT


def test_a_bad_address_is_efault_as_from_a_kernel() -> None:
    backend, _ = backend_on(never)
    assert errno_of(backend, VM_FD, uapi.KVM_GET_DIRTY_LOG, 0) == errno.EFAULT


def test_descriptors_that_are_not_of_kvm_are_refused() -> None:
    backend, _ = backend_on(never)
    assert errno_of(backend, 1, uapi.KVM_CHECK_EXTENSION, 1) == errno.EBADF


def test_only_kvm_can_be_opened_and_nothing_mapped_or_closed() -> None:
    backend, injector = backend_on(never)
    assert backend.open("/dev/kvm", os.O_RDWR) == KVM_FD
    backend.close(KVM_FD)
    with pytest.raises(FileNotFoundError):
        backend.open("/dev/null", os.O_RDWR)
    with pytest.raises(OSError, match=os.strerror(errno.EOPNOTSUPP)):
        backend.mmap(VM_FD, 4096, 0)
    assert not injector.stops
