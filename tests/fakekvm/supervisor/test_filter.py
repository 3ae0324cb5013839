"""What the filter lets pass, by a second reading of classic BPF."""

from __future__ import annotations

import struct

import pytest

from fakekvm.supervisor.filter import program
from tests.bpf import ALLOW, I386, X86_64, outcome

NOTIFY = 0x7FC00000
AT_EMPTY_PATH = 0x1000


def decision(nr: int, *args: int, arch: int = X86_64, kvm_requests: list[int] | None = None) -> int:
    lines = list(struct.iter_unpack("<HBBI", program(kvm_requests)))
    return outcome(lines, nr, *args, arch=arch)


# By name, from /usr/include/asm/unistd_64.h.
READ, FSTAT, MMAP, DUP, CLONE, EXIT_GROUP = 0, 5, 9, 32, 56, 231
IOCTL, EXECVE, NEWFSTATAT, STATX, EXECVEAT = 16, 59, 262, 332, 322
NAME_A_FILE = [2, 4, 6, 21, 85, 89, 257, 267, 269, 437, 439]


@pytest.mark.parametrize("nr", [*NAME_A_FILE, EXECVE, EXECVEAT, NEWFSTATAT, STATX])
def test_calls_that_name_a_file_are_asked_about(nr: int) -> None:
    assert decision(nr) == NOTIFY
    assert decision(nr, arch=I386) == ALLOW
    assert decision(nr | 1 << 30) == ALLOW, "x32"


@pytest.mark.parametrize("nr", [READ, 1, 3, FSTAT, MMAP, DUP, CLONE, 61, EXIT_GROUP, 435])
def test_others_are_not(nr: int) -> None:
    assert decision(nr, *[0xAE00] * 6) == ALLOW


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (0xAE01, NOTIFY),
        (0xC008AE05, NOTIFY),
        (0xFFFFFFFF_4010AE42, NOTIFY),
        (0xC0105300, NOTIFY),
        (0x5401, ALLOW),
        (0xAF01, ALLOW),
        (0xAE_5401, ALLOW),
    ],
)
def test_of_ioctls_those_of_kvm_and_sev(request_: int, expected: int) -> None:
    assert decision(IOCTL, 0xAE00, request_, 0xAE00) == expected


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (0xAE01, NOTIFY),
        (0x4018AEC2, NOTIFY),
        (0xFFFFFFFF_4018AEC2, NOTIFY),
        (0x4018AEC3, ALLOW),
        (0xAE80, ALLOW),
        (0xC0105300, NOTIFY),
        (0x5401, ALLOW),
    ],
)
def test_over_a_real_kvm_only_of_some_of_its_ioctls(request_: int, expected: int) -> None:
    requests = [0xAE01, 0x4018AEC2]
    assert decision(IOCTL, 3, request_, kvm_requests=requests) == expected
    assert decision(EXECVE, kvm_requests=requests) == NOTIFY
    assert decision(READ, 3, request_, kvm_requests=requests) == ALLOW


def test_fstat_by_its_newer_names_is_let_pass() -> None:
    assert decision(NEWFSTATAT, 3, 0, 0, AT_EMPTY_PATH | 0x100) == ALLOW
    assert decision(NEWFSTATAT, 3, 0, AT_EMPTY_PATH, 0x100) == NOTIFY
    assert decision(STATX, 3, 0, AT_EMPTY_PATH | 0x100) == ALLOW
    assert decision(STATX, 3, 0, 0x100, AT_EMPTY_PATH) == NOTIFY
