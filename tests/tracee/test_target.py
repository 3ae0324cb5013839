"""What is checked of a process before anything is done to it: one line each."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from kvmenc import procfs
from kvmenc.errors import HostError
from kvmenc.tracee import Target
from tests.support import need, need_kvm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.tracee.sleeper import Sleeper

NOBODY = 65534

VMS = """
import os, sys
from kvmenc.backend import LocalBackend
from kvmenc.kvm import KvmSystem
system = KvmSystem.open(LocalBackend())
vms = [system.create_vm() for _ in range(int(sys.argv[1]))]
print(" ".join(str(vm.fd) for vm in vms), system.fd, flush=True)
sys.stdin.read()
"""
AS_NOBODY = """
import os, sys
from kvmenc.errors import HostError
from kvmenc.tracee import Target
os.setresgid(65534, 65534, 65534)
os.setresuid(65534, 65534, 65534)
try:
    Target.of(int(sys.argv[1]))
except HostError as error:
    print(error)
"""
TRACE = """
import sys
from kvmenc.tracee import ptrace
ptrace.seize(int(sys.argv[1]))
print("traced", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def python() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts a Python program; all are ended after the test."""
    started: list[subprocess.Popen[str]] = []

    def start(program: str, *arguments: object) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", program, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def why_not(pid: int) -> str:
    """The error of a process that cannot be used: one line."""
    with pytest.raises(HostError) as caught:
        Target.of(pid)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.kvm
def test_a_process_with_one_vm_is_a_target(python: Callable[..., subprocess.Popen[str]]) -> None:
    need_kvm()
    process = python(VMS, 1)
    assert process.stdout is not None
    vm_fd, kvm_fd = map(int, process.stdout.readline().split())
    target = Target.of(process.pid, avoid=[1, 2])
    assert (target.pid, target.vm_fd, target.kvm_fd) == (process.pid, vm_fd, kvm_fd)
    assert target.avoid == {1, 2}
    target.check_alive()
    process.kill()
    process.wait()
    with pytest.raises(HostError, match=f"process {process.pid} has ended"):
        target.check_alive()


@pytest.mark.kvm
def test_two_vms_in_one_process_are_refused(python: Callable[..., subprocess.Popen[str]]) -> None:
    need_kvm()
    process = python(VMS, 2)
    assert process.stdout is not None
    first, second, _ = process.stdout.readline().split()
    assert f"has 2 KVM VMs (file descriptors {first}, {second})" in why_not(process.pid)


def test_a_later_process_of_the_same_pid_is_noticed(start: Callable[[str], Sleeper]) -> None:
    target = start("futex").target
    target.check_alive()
    with pytest.raises(HostError, match="has ended"):
        replace(target, started_ticks=target.started_ticks - 1).check_alive()


def test_a_process_without_a_vm_is_refused(start: Callable[[str], Sleeper]) -> None:
    assert "has no KVM VM" in why_not(start("futex").pid)


def test_a_pid_that_is_nobodys_is_refused() -> None:
    pid = int(Path("/proc/sys/kernel/pid_max").read_text()) + 1
    assert why_not(pid) == f"there is no process {pid}"


def test_we_ourselves_are_refused() -> None:
    assert "is kvmenc itself" in why_not(os.getpid())


def test_a_thread_is_refused_and_its_process_named(start: Callable[[str], Sleeper]) -> None:
    sleeper = start("futex")
    assert f"{sleeper.tid} is a thread of process {sleeper.pid}" in why_not(sleeper.tid)


def test_a_dead_process_is_refused() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    while procfs.state(process.pid) != "Z":
        time.sleep(0.01)
    assert "has ended" in why_not(process.pid)
    process.wait()


def test_a_stopped_process_is_refused(start: Callable[[str], Sleeper]) -> None:
    sleeper = start("futex")
    sleeper.kill(signal.SIGSTOP)
    while procfs.state(sleeper.pid) != "T":
        time.sleep(0.01)
    assert f"is stopped: continue it first (kill -CONT {sleeper.pid})" in why_not(sleeper.pid)


def test_a_traced_process_is_refused(
    start: Callable[[str], Sleeper], python: Callable[..., subprocess.Popen[str]]
) -> None:
    sleeper = start("futex")
    tracer = python(TRACE, sleeper.pid)
    assert tracer.stdout is not None
    assert tracer.stdout.readline() == "traced\n"
    assert f"is traced by process {tracer.pid}" in why_not(sleeper.pid)


def test_no_permission_is_explained(
    start: Callable[[str], Sleeper], python: Callable[..., subprocess.Popen[str]]
) -> None:
    need(os.geteuid() == 0, "only root can become somebody else", "KVMENC_REQUIRE_KVM")
    message, _ = python(AS_NOBODY, start("futex").pid).communicate()
    for word in ("may not be looked into", "EACCES", "CAP_SYS_PTRACE", "ptrace_scope", "root"):
        assert word in message
    assert message.count("\n") == 1


def test_a_filter_that_is_not_qemus_is_refused(start: Callable[[str], Sleeper]) -> None:
    assert "has a seccomp filter and is not QEMU" in why_not(start("seccomp").pid)


def test_qemus_filter_is_no_hindrance(sleeper_program: Path, tmp_path: Path) -> None:
    program = tmp_path / "qemu-system-x86_64"
    program.write_bytes(sleeper_program.read_bytes())
    program.chmod(0o755)
    with subprocess.Popen(
        [program, "seccomp"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert "has no KVM VM" in why_not(process.pid)
        process.kill()


def elf32() -> bytes:
    """The smallest 32-bit program that sleeps: pause() for ever."""
    base, code = 0x10000, bytes.fromhex("b81d000000 cd80 ebf7")
    size = 52 + 32 + len(code)
    words = [2 | 3 << 16, 1, base + 84, 52, 0, 0, 52 | 32 << 16, 1, 0]
    header = b"\x7fELF\x01\x01\x01" + bytes(9) + b"".join(w.to_bytes(4, "little") for w in words)
    segment = [1, 0, base, base, size, size, 5, 4096]
    return header + b"".join(w.to_bytes(4, "little") for w in segment) + code


def runs(program: Path) -> bool:
    try:
        with subprocess.Popen([program]) as process:
            process.kill()
    except OSError:
        return False
    return True


def test_a_32_bit_process_is_refused(tmp_path: Path) -> None:
    program = tmp_path / "small"
    program.write_bytes(elf32())
    program.chmod(0o755)
    need(runs(program), "this kernel runs no 32-bit programs", "KVMENC_REQUIRE_KVM")
    with subprocess.Popen([program]) as process:
        assert "is a 32-bit program" in why_not(process.pid)
        process.kill()


def test_a_shadow_stack_is_refused(
    start: Callable[[str], Sleeper], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Few machines have one, so what the kernel says of it is put in its mouth."""
    sleeper, status = start("futex"), procfs.status

    def with_shadow_stack(tid: int) -> dict[str, str]:
        return status(tid) | {"x86_Thread_features": "shstk wrss"}

    monkeypatch.setattr(procfs, "status", with_shadow_stack)
    assert "has a shadow stack" in why_not(sleeper.pid)
