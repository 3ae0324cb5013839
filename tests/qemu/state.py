"""What must be the same in a QEMU after it was looked into as before."""

from __future__ import annotations

import ctypes
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from kvmenc import uapi
from kvmenc.procfs import Mapping, mappings, thread_ids
from kvmenc.tracee import ptrace

_KEPT = ["rbx", "rbp", "r12", "r13", "r14", "r15", "rsp", "rip", "cs", "ss", "fs_base", "gs_base"]
_VSYSCALL = 1 << 63  # the kernel's own, not the process's


@dataclass(frozen=True, slots=True)
class State:
    """A process's code and signals.

    Attributes:
        code: digests of what can be executed, as it stands in memory, by mapping.
        blocked: the signals that each thread blocks.
        tracers: who traces each thread; 0: nobody.
    """

    code: dict[Mapping, str]
    blocked: dict[int, str]
    tracers: dict[int, str]

    def is_still(self, later: State) -> bool:
        """Whether all is as it was; QEMU may have more threads."""
        blocked = {tid: later.blocked.get(tid) for tid in self.blocked}
        return (
            later.code == self.code
            and blocked == self.blocked
            and set(later.tracers.values()) == {"0"}
        )


def state_of(pid: int) -> State:
    status = {tid: _status(tid) for tid in thread_ids(pid)}
    return State(
        code={it: hashlib.sha256(_in_memory(pid, it)).hexdigest() for it in _executable(pid)},
        blocked={tid: lines["SigBlk"] for tid, lines in status.items()},
        tracers={tid: lines["TracerPid"] for tid, lines in status.items()},
    )


def differs_from_its_file(pid: int) -> list[Mapping]:
    """Mappings of code that are not in memory what they are in the file."""
    from_files = [it for it in _executable(pid) if it.inode]
    return [it for it in from_files if _in_memory(pid, it) != _in_file(it)]


def system_call_of(pid: int, tid: int) -> tuple[int, ...] | None:
    """Where a thread is: system call, first argument, stack and instruction pointer.

    The other arguments are new each time: time-outs, lengths, a counter's value. None: it runs; the
    kernel's own threads for a VM, which are among QEMU's, have no instruction pointer.
    """
    words = Path(f"/proc/{pid}/task/{tid}/syscall").read_text().split()
    if len(words) != 9:
        return None
    number, first, *_, stack, instruction = words
    return (int(number), int(first, 16), int(stack, 16), int(instruction, 16))


def registers_of(tid: int) -> dict[str, int]:
    """The registers that a thread finds again after a system call; it is stopped for a moment."""
    regs = uapi.user_regs_struct()
    ptrace.seize(tid)
    ptrace.interrupt(tid)
    ptrace.wait(tid)
    ptrace.get_regs(tid, ctypes.addressof(regs))
    ptrace.detach(tid)
    return {name: getattr(regs, name) for name in _KEPT}


def pending_signals(pid: int) -> int:
    """Signals sent to the process that none of its threads has taken yet, a bit each."""
    return int(_status(pid)["ShdPnd"], 16)


def _status(tid: int) -> dict[str, str]:
    lines = Path(f"/proc/{tid}/status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def _executable(pid: int) -> list[Mapping]:
    return [it for it in mappings(pid) if "x" in it.perms and it.start < _VSYSCALL]


def _in_memory(pid: int, mapping: Mapping) -> bytes:
    fd = os.open(f"/proc/{pid}/mem", os.O_RDONLY)
    try:
        return os.pread(fd, mapping.end - mapping.start, mapping.start)
    finally:
        os.close(fd)


def _in_file(mapping: Mapping) -> bytes:
    """With the zeros that fill up the last page."""
    size = mapping.end - mapping.start
    with Path(mapping.path).open("rb") as file:
        file.seek(mapping.offset)
        return file.read(size).ljust(size, b"\0")
