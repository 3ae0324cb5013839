"""Instructions that a process holds already, and that a borrowed thread is led through.

All are looked for in the process's memory as it is now, in mappings of files that may be executed:
what is on disk may be newer than what runs.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kvmenc import procfs
from kvmenc.errors import HostError
from kvmenc.tracee.copy import read_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kvmenc.procfs import Mapping

__all__ = ["Gadgets", "find_gadgets"]

_SYSCALL = re.compile(rb"\x0f\x05\xc3")  # syscall; ret
# mov $15,%rax (or %eax); syscall: rt_sigreturn, where every C library's signal handlers return to
_SIGRETURN = re.compile(rb"(?:\x48\xc7\xc0|\xb8)\x0f\x00\x00\x00\x0f\x05")
# mov %rax,disp(%reg); ret  for rcx, rdx, rbx, rsi, rdi (the low three bits of the second last byte
# of the opcode; 4 and 5 mean other things), with no displacement or one byte of it.
_STORE = re.compile(rb"\x48\x89(?:[\x01-\x03\x06\x07]|[\x41-\x43\x46\x47][\s\S])\xc3")
_POP = 0x58  # pop %reg: this plus the register's number


@dataclass(frozen=True, slots=True)
class Gadgets:
    """Addresses in the process.

    Attributes:
        syscall: ``syscall; ret``.
        sigreturn: sets rax and calls rt_sigreturn.
        pop: ``pop %reg; ret`` for the register that ``store`` writes through.
        store: ``mov %rax,displacement(%reg); ret``.
        displacement: of the store, in bytes, signed.
    """

    syscall: int
    sigreturn: int
    pop: int
    store: int
    displacement: int

    @property
    def after_syscall(self) -> int:
        """Where system calls return to."""
        return self.syscall + 2


def find_gadgets(pid: int) -> Gadgets:
    """Look for them: in the C library first, then in the other files by address.

    Raises:
        HostError: the process has none; no such process; not permitted.
    """
    found: dict[str, int] = {}
    pops: dict[int, int] = {}
    stores: dict[int, tuple[int, int]] = {}
    for start, code in _code(pid):
        for name, pattern in (("syscall", _SYSCALL), ("sigreturn", _SIGRETURN)):
            if match := pattern.search(code):
                found.setdefault(name, start + match.start())
        _add_stores(stores, start, code)
        _add_pops(pops, start, code)
        usable = sorted(stores.keys() & pops.keys())
        if len(found) == 2 and usable:
            store, displacement = stores[usable[0]]
            return Gadgets(**found, pop=pops[usable[0]], store=store, displacement=displacement)
    raise HostError(
        f"process {pid} cannot be made to call the kernel: its programs and libraries lack the"
        " instructions (syscall, rt_sigreturn, and a store of the result) that would be borrowed"
    )


def _code(pid: int) -> Iterator[tuple[int, bytes]]:
    executable = [m for m in procfs.mappings(pid) if m.perms == "r-xp" and m.inode]
    for mapping in sorted(executable, key=_libc_first):
        try:
            yield mapping.start, read_bytes(pid, mapping.start, mapping.end - mapping.start)
        except PermissionError as error:
            raise procfs.no_permission(pid, "process_vm_readv: EPERM") from error
        except OSError:
            continue  # past the end of its file, or unmapped just now


def _libc_first(mapping: Mapping) -> tuple[bool, int]:
    name = mapping.path.rpartition("/")[2]
    return not name.startswith(("libc.so", "libc-", "ld-musl")), mapping.start


def _add_stores(stores: dict[int, tuple[int, int]], start: int, code: bytes) -> None:
    for match in _STORE.finditer(code):
        byte, operand = match[0][2], match[0][3:-1]
        displacement = int.from_bytes(operand, signed=True)
        stores.setdefault(byte & 7, (start + match.start(), displacement))


def _add_pops(pops: dict[int, int], start: int, code: bytes) -> None:
    for register in (1, 2, 3, 6, 7):
        at = code.find(bytes((_POP + register, 0xC3)))
        if at >= 0:
            pops.setdefault(register, start + at)
