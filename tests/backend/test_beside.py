"""A guest in a thread of its own: how often it ran is chance, what the program did is not."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from fakekvm import host_named
from kvmenc import uapi
from kvmenc.backend.fake import FakeBackend
from kvmenc.backend.kinds import seen
from kvmenc.errors import ReplayDivergence
from kvmenc.guest.scratch import ScratchVm
from kvmenc.kvm import Exit
from tests.backend.recordings import PROGRAM, ioctls, record, replay

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from kvmenc.backend import Backend


def runs(count: int, found: list[Exit]) -> Callable[[Backend], None]:
    """A vCPU run so often by another thread, and a log read by this one meanwhile."""

    def use(backend: Backend) -> None:
        with ScratchVm(backend) as machine:
            machine.load(PROGRAM)

            def guest() -> None:
                found.extend(machine.vcpu.run() for _ in range(count))

            thread = threading.Thread(target=guest)
            thread.start()
            machine.vm.dirty_log(machine.layout.slots[3])
            thread.join()

    return use


def test_more_runs_than_recorded_are_interrupted_and_fewer_are_enough(tmp_path: Path) -> None:
    path = tmp_path / "a.recording"
    record(path, FakeBackend(host_named("mainline")), runs(3, []))
    assert len(ioctls(path, uapi.KVM_RUN)) == 3
    for count, interrupted in ((3, 0), (5, 2), (1, 0)):
        found: list[Exit] = []
        replay(path, runs(count, found))
        assert found == [Exit.IO] * (count - interrupted) + [Exit.INTR] * interrupted


def test_a_guest_that_is_never_stopped_diverges_at_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kvmenc.backend.replay._MOST_INTERRUPTIONS", 5)
    path = tmp_path / "a.recording"
    record(path, FakeBackend(host_named("mainline")), runs(3, []))
    failed: list[BaseException] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: failed.append(args.exc_value))
    with pytest.raises(ReplayDivergence, match=r"called KVM_RUN\(fd 2, 0\)"):
        replay(path, runs(3 + 20, []))
    assert isinstance(failed[0], ReplayDivergence)


def test_a_vcpu_of_the_same_thread_may_not_run_more_nor_less(tmp_path: Path) -> None:
    def use(backend: Backend, count: int) -> None:
        with ScratchVm(backend) as machine:
            machine.load(PROGRAM)
            for _ in range(count):
                machine.vcpu.run()

    path = tmp_path / "a.recording"
    record(path, FakeBackend(host_named("mainline")), lambda backend: use(backend, 2))
    replay(path, lambda backend: use(backend, 2))
    for count, text in ((3, "called KVM_RUN"), (1, r"recorded KVM_RUN.*, called close")):
        with pytest.raises(ReplayDivergence, match=text):
            replay(path, lambda backend, count=count: use(backend, count))  # type: ignore[misc]


def test_vcpus_of_many_threads_each_see_their_own_exits(tmp_path: Path) -> None:
    """In whatever order the threads come."""

    def use(backend: Backend, *, backwards: bool = False) -> list[list[int]]:
        with ExitStack() as stack:
            machines = [stack.enter_context(ScratchVm(backend)) for _ in range(3)]
            for machine in machines:
                machine.load(PROGRAM)
            found: list[list[int]] = [[] for _ in machines]

            def guest(number: int) -> None:
                for _ in range(number + 1):
                    machines[number].vcpu.run()
                    found[number].append(machines[number].vcpu.state.io.port)

            threads = [threading.Thread(target=guest, args=(it,)) for it in range(3)]
            for thread in reversed(threads) if backwards else threads:
                thread.start()
            for thread in threads:
                thread.join()
            return found

    path = tmp_path / "a.recording"
    live = record(path, FakeBackend(host_named("mainline")), use)
    assert [len(it) for it in live] == [1, 2, 3]
    assert replay(path, lambda backend: use(backend, backwards=True)) == live


def test_what_a_program_saw_is_what_it_sees(tmp_path: Path) -> None:
    def use(backend: Backend, values: list[float]) -> list[float]:
        return [seen(backend, "a count", values.pop) for _ in range(2)]

    path = tmp_path / "a.recording"
    lower = FakeBackend(host_named("mainline"))
    assert use(lower, [1, 2.5]) == [2.5, 1]
    live = record(path, lower, lambda backend: use(backend, [3, 4.25]))
    assert live == [4.25, 3]
    assert replay(path, lambda backend: use(backend, [0, 0])) == live
