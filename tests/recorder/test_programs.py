"""C programs recorded on the real KVM: what is in the file, and that it can be replayed."""

from __future__ import annotations

import ctypes
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from kvmenc import uapi
from kvmenc.backend.recordfile import load_recording
from kvmenc.backend.recordmodel import Closed, Ioctled, Opened, Ran
from kvmenc.backend.replay import ReplayBackend
from kvmenc.errors import ReplayDivergence
from tests.backend.recordings import all_bytes
from tests.recorder.conftest import SECRET
from tests.support import need_kvm

if TYPE_CHECKING:
    from pathlib import Path

    from kvmenc.backend.recordmodel import Call
    from tests.recorder.conftest import Record

pytestmark = pytest.mark.kvm
GUEST_PAGES = 128


@pytest.fixture(autouse=True)
def _on_kvm() -> None:
    need_kvm()


def in_short(calls: tuple[Call, ...]) -> list[str]:
    """``KVM_RUN 2``: its name and its descriptor."""
    found = []
    for call in calls:
        match call:
            case Ioctled(name=name, fd=fd):
                found.append(f"{name} {fd}")
            case Opened(fd=fd):
                found.append(f"open {fd}")
            case Closed(fd=fd):
                found.append(f"close {fd}")
    return found


def holds(path: Path) -> bool:
    """Whether a part of the secret, of 4 bytes, is in the file."""
    everything = b"\0".join(all_bytes(path))
    return any(SECRET[at : at + 4].encode() in everything for at in range(len(SECRET) - 3))


class Same:
    """Makes the calls of ``asker guest`` on a backend, one by one as C does."""

    def __init__(self, path: Path) -> None:
        self.backend = ReplayBackend(path)

    def ioctl(self, fd: int, request: int, argument: ctypes.Structure | int = 0) -> int:
        arg = argument if isinstance(argument, int) else ctypes.addressof(argument)
        return self.backend.ioctl(fd, request, arg)

    def run(self) -> tuple[list[int], int]:
        """The exit reasons, and the first word of the dirty log."""
        with self.backend as backend:
            kvm, vm, vcpu = self._made()
            nbytes = self.ioctl(kvm, uapi.KVM_GET_VCPU_MMAP_SIZE)
            area = backend.mmap(vcpu, nbytes, 0)
            self._set_registers(vcpu)
            reasons: list[int] = []
            while not reasons or reasons[-1] != uapi.KVM_EXIT_HLT:
                assert self.ioctl(vcpu, uapi.KVM_RUN) == 0
                reasons.append(uapi.kvm_run.from_buffer_copy(area).exit_reason)
            bitmap = (ctypes.c_uint64 * (GUEST_PAGES // 64))()
            log = uapi.kvm_dirty_log(dirty_bitmap=ctypes.addressof(bitmap))
            self.ioctl(vm, uapi.KVM_GET_DIRTY_LOG, log)
            self.ioctl(kvm, uapi.KVM_GET_VCPU_MMAP_SIZE)
            for fd in (vcpu, vm, kvm):
                backend.close(fd)
        return reasons, bitmap[0]

    def _made(self) -> tuple[int, int, int]:
        kvm = self.backend.open("/dev/kvm", 2)
        assert self.ioctl(kvm, uapi.KVM_GET_API_VERSION) == 12
        vm = self.ioctl(kvm, uapi.KVM_CREATE_VM)
        region = uapi.kvm_userspace_memory_region(
            flags=uapi.KVM_MEM_LOG_DIRTY_PAGES, memory_size=GUEST_PAGES * 4096, userspace_addr=4096
        )
        self.ioctl(vm, uapi.KVM_SET_USER_MEMORY_REGION, region)
        return kvm, vm, self.ioctl(vm, uapi.KVM_CREATE_VCPU)

    def _set_registers(self, vcpu: int) -> None:
        sregs = uapi.kvm_sregs()
        self.ioctl(vcpu, uapi.KVM_GET_SREGS, sregs)
        sregs.cs.base = sregs.cs.selector = 0
        self.ioctl(vcpu, uapi.KVM_SET_SREGS, sregs)
        self.ioctl(vcpu, uapi.KVM_SET_REGS, uapi.kvm_regs(rip=0x1000, rdx=16, rflags=2))


def test_a_c_program_is_replayed_by_the_same_calls_of_another(asker: str, record: Record) -> None:
    recorded = record(asker, "guest", SECRET)
    assert recorded.recording.header.backend == "local"
    reasons, dirty = Same(recorded.path).run()
    assert Counter(reasons) == {uapi.KVM_EXIT_IO: 16, uapi.KVM_EXIT_MMIO: 1, uapi.KVM_EXIT_HLT: 1}
    assert dirty == 1 << 5


@pytest.mark.parametrize("what", ["guest", "vector-registers", "mapped-over"])
def test_nothing_that_a_guest_holds_is_in_the_file_unless_asked_for(
    what: str, asker: str, record: Record
) -> None:
    """Planted in its memory, its registers, what it hands out, and buffers before the kernel's."""
    without = record(asker, what, SECRET)
    assert without.recording.calls
    assert not holds(without.path)
    if what != "mapped-over":  # there it is in memory that no call names
        with_contents = record(asker, what, SECRET, options=("--record-contents",))
        assert with_contents.recording.header.contents
        assert holds(with_contents.path)


def test_descriptors_are_followed_through_duplicates(asker: str, record: Record) -> None:
    calls = record(asker, "duplicates", SECRET).recording.calls
    assert in_short(calls) == [
        "open 0",
        "KVM_GET_API_VERSION 0",
        "KVM_CHECK_EXTENSION 0",
        "KVM_CREATE_VM 0",
        "close 1",
        "KVM_CHECK_EXTENSION 0",
        "close 0",
    ]


def test_a_child_asks_by_what_it_inherited(asker: str, record: Record) -> None:
    calls = record(asker, "child", SECRET).recording.calls
    both = ["KVM_CHECK_EXTENSION 0", "KVM_GET_API_VERSION 0"]
    assert in_short(calls) == ["open 0", *both, "close 0"]
    assert [it.thread for it in calls] == [0, 1, 0, 0]


def test_another_program_has_what_is_not_closed_by_executing_it(asker: str, record: Record) -> None:
    calls = record(asker, "executes", SECRET).recording.calls
    assert in_short(calls) == ["open 0", "KVM_GET_API_VERSION 0", "close 0"]


def test_threads_are_told_apart(asker: str, record: Record) -> None:
    calls = record(asker, "threads", SECRET).recording.calls
    assert sorted(Counter(it.thread for it in calls).values()) == [1, 100, 100, 100, 100]


def test_a_signal_ends_a_run_with_eintr(asker: str, record: Record) -> None:
    calls = record(asker, "signals", SECRET).recording.calls
    runs = [it for it in calls if isinstance(it, Ioctled) and it.request == uapi.KVM_RUN]
    assert [it.errno for it in runs] == [4, 4, 4]


def test_runs_are_kept_up_to_a_number_and_then_counted(
    asker: str, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kvmenc.recorder.session.MOST_RUNS", 5)
    recorded = record(asker, "guest", SECRET)
    calls = recorded.recording.calls
    assert sum(isinstance(it, Ioctled) and it.request == uapi.KVM_RUN for it in calls) == 5
    (counted,) = [it for it in calls if isinstance(it, Ran)]
    assert counted.exits == {"KVM_EXIT_HLT": 1, "KVM_EXIT_IO": 11, "KVM_EXIT_MMIO": 1}
    with pytest.raises(ReplayDivergence, match=r"recorded KVM_RUN\(fd 2\), 13 times, called KVM_"):
        Same(recorded.path).run()


def test_a_recording_that_is_full_ends_there_and_says_so(
    asker: str, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kvmenc.backend.recordfile.MAX_CALLS", 20)
    recorded = record(asker, "guest", SECRET)
    assert "is full: 13 later calls are not in it" in recorded.result.stderr
    assert len(recorded.recording.calls) == 20
    with pytest.raises(ReplayDivergence, match="at its end: recorded nothing more"):
        Same(recorded.path).run()


def test_a_host_that_refuses_is_recorded(record: Record) -> None:
    """Opening the device read-only is no refusal; a folder's name in place of it is."""
    path = record("sh", "-c", "exec 3</dev/kvm/none; :").path
    assert not path.exists(), "that names no device"
    calls = load_recording(record("sh", "-c", "exec 3</dev/kvm").path).calls
    assert calls[0] == Opened(path="/dev/kvm", flags=0, fd=0)
