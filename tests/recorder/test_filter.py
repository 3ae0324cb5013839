"""Which calls stop a program, by a second reading of classic BPF."""

from __future__ import annotations

import pytest

from kvmenc.recorder.filter import instructions
from tests.bpf import ALLOW, I386, X86_64, outcome

TRACE = 0x7FF00000


def decision(nr: int, *args: int, arch: int = X86_64) -> int:
    lines = [(it.code, it.jt, it.jf, it.k) for it in instructions()]
    return outcome(lines, nr, *args, arch=arch)


# By name, from /usr/include/asm/unistd_64.h.
OPEN, CLOSE, MMAP, IOCTL, DUP, DUP2, FCNTL, OPENAT = 2, 3, 9, 16, 32, 33, 72, 257
DUP3, CLOSE_RANGE, OPENAT2 = 292, 436, 437


@pytest.mark.parametrize("nr", [OPEN, CLOSE, DUP, DUP2, DUP3, OPENAT, OPENAT2, CLOSE_RANGE])
def test_what_gives_or_takes_a_descriptor_stops(nr: int) -> None:
    assert decision(nr) == TRACE
    assert decision(nr, arch=I386) == ALLOW
    assert decision(nr | 1 << 30) == ALLOW, "x32"


@pytest.mark.parametrize("nr", [0, 1, 4, 5, 10, 11, 56, 59, 202, 231, 262, 322])
def test_others_do_not(nr: int) -> None:
    assert decision(nr, *[0xAE00] * 6) == ALLOW


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (0xAE01, TRACE),
        (0xC008AE05, TRACE),
        (0xFFFFFFFF_4010AE42, TRACE),
        (0xC0105300, TRACE),
        (0x5401, ALLOW),
        (0xAE, ALLOW),
    ],
)
def test_ioctls_of_kvm_and_sev_stop(request_: int, expected: int) -> None:
    assert decision(IOCTL, 0xAE00, request_, 0xAE00) == expected


@pytest.mark.parametrize(
    ("flags", "expected"),
    [(0x1, TRACE), (0x3, TRACE), (0x2, ALLOW), (0x21, ALLOW), (0x22, ALLOW), (0x8001, TRACE)],
)
def test_shared_mappings_of_files_stop(flags: int, expected: int) -> None:
    assert decision(MMAP, 0, 4096, 3, flags, 5, 0) == expected


@pytest.mark.parametrize(
    ("operation", "expected"), [(0, TRACE), (1030, TRACE), (1, ALLOW), (3, ALLOW), (1033, ALLOW)]
)
def test_duplicating_by_fcntl_stops(operation: int, expected: int) -> None:
    assert decision(FCNTL, 5, operation) == expected
