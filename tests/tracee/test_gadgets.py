"""Instructions found in a process, told by their bytes."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

import pytest

from kvmenc.errors import HostError
from kvmenc.tracee import gadgets
from kvmenc.tracee.copy import read_bytes
from kvmenc.tracee.gadgets import find_gadgets

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.tracee.sleeper import Sleeper

BASE = 0x7F00_0000_0000
SYSCALL, SIGRETURN = b"\x0f\x05\xc3", bytes.fromhex("48c7c00f000000 0f05")


def test_what_is_found_is_there(start: Callable[[str], Sleeper]) -> None:
    pid = start("futex").pid
    found = find_gadgets(pid)
    assert read_bytes(pid, found.syscall, 3) == SYSCALL
    assert re.fullmatch(
        rb"(\x48\xc7\xc0|\xb8)\x0f\0\0\0\x0f\x05.*", read_bytes(pid, found.sigreturn, 9)
    )
    pop, store = read_bytes(pid, found.pop, 2), read_bytes(pid, found.store, 3)
    assert pop[1:] == b"\xc3"
    assert store[:2] == b"\x48\x89"
    assert store[2] & 7 == pop[0] - 0x58


def test_the_same_ones_are_found_every_time(start: Callable[[str], Sleeper]) -> None:
    pid = start("futex").pid
    assert find_gadgets(pid) == find_gadgets(pid)


def found_in(*codes: bytes) -> gadgets.Gadgets:
    """What is found where these bytes are the code, 1 MiB apart."""
    with pytest.MonkeyPatch.context() as patch:
        pieces = [(BASE + (i << 20), code) for i, code in enumerate(codes)]
        patch.setattr(gadgets, "_code", lambda _pid: iter(pieces))
        return find_gadgets(os.getpid())


@pytest.mark.parametrize(
    ("store", "pop", "displacement"),
    [
        ("488902c3", "5ac3", 0),  # mov %rax,(%rdx); pop %rdx
        ("488907c3", "5fc3", 0),  # (%rdi)
        ("488906c3", "5ec3", 0),  # (%rsi)
        ("488903c3", "5bc3", 0),  # (%rbx)
        ("488901c3", "59c3", 0),  # (%rcx)
        ("48894708c3", "5fc3", 8),
        ("488946f8c3", "5ec3", -8),
        ("4889420ac3", "5ac3", 10),  # a displacement that is a line's end in text
    ],
)
def test_a_store_goes_with_a_pop_of_its_register(store: str, pop: str, displacement: int) -> None:
    decoy = bytes.fromhex("58c3 5cc3 5dc3 488904c3 488905c3 48894408c3")  # rax, rsp, rbp, others
    code = [
        b"\x90" + SYSCALL,
        SIGRETURN,
        decoy,
        bytes.fromhex(store),
        b"\x90\x90" + bytes.fromhex(pop),
    ]
    found = found_in(*code)
    assert found == gadgets.Gadgets(
        BASE + 1, BASE + (1 << 20), BASE + (4 << 20) + 2, BASE + (3 << 20), displacement
    )


@pytest.mark.parametrize("missing", range(4))
def test_a_process_that_lacks_one_is_refused(missing: int) -> None:
    code = [SYSCALL, SIGRETURN, bytes.fromhex("488902c3"), bytes.fromhex("5ac3")]
    found_in(*code)
    del code[missing]
    with pytest.raises(HostError, match="cannot be made to call the kernel"):
        found_in(*code)


def test_a_store_without_its_own_pop_is_no_use() -> None:
    with pytest.raises(HostError, match="cannot be made to call the kernel"):
        found_in(SYSCALL, SIGRETURN, bytes.fromhex("488902c3 5fc3"))
