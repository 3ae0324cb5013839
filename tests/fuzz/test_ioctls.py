"""Any ioctl of a fake host, on any descriptor, with any struct: a number or an errno, in bounds."""

from __future__ import annotations

import errno
import os
import struct
import time
import tracemalloc
from typing import TYPE_CHECKING

import pytest

from fakekvm import Kernel, host_named, host_names
from fakekvm.requestnames import request_names
from tests.fakekvm.raw import MEMORY_ENCRYPT_OP, REG_REGION, UNREG_REGION
from tests.fakekvm.sevraw import UNASKED, Machine, SevGuest
from tests.fuzz.arena import Arena
from tests.fuzz.inputs import PIECES, each

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator

#: The out-of-tree bitmap of a guest of 64 TiB, and as much to grow; untouched, it takes no memory.
MOST_BYTES, LONGEST_S = 4 << 30, 2.0
CALLS = 6
_CREATE_VM, _CREATE_VCPU = 0xAE01, 0xAE41
_HOSTS = [name for name in host_names() if not host_named(name).open_errno]
_SMALL = (0, 0, 1, 2, 3, 64, 192, 0x1000, 0x3000, 0x10000, 1 << 31, (1 << 32) - 1)


@pytest.fixture
def arena() -> Iterator[Arena]:
    with Arena() as arena:
        yield arena


def test_any_call_is_answered_with_a_number_or_an_errno(arena: Arena) -> None:
    """A VM and a vCPU are there; what calls make besides lives until the end of an input."""

    def one(rng: random.Random) -> str:
        arena.begin()
        host = host_named(rng.choice(_HOSTS))
        requests = sorted({it.number for it in request_names(host).values()})
        with Kernel(host) as kernel:
            fds = [kernel.open("/dev/kvm", os.O_RDWR)]
            fds.append(kernel.ioctl(fds[0], _CREATE_VM, 0))
            fds.append(kernel.ioctl(fds[1], _CREATE_VCPU, 0))
            said = ""
            for _ in range(CALLS):
                arena.put(0, _struct(rng, arena))
                args = arena.address, arena.address, arena.somewhere(rng), rng.choice(_SMALL)
                said = _answer(kernel, rng.choice(fds), rng.choice(requests), rng.choice(args))
        return said

    each("ioctls", one, {"done", "EINVAL", "EFAULT", "ENOTTY"})


def test_any_sev_command_is_answered_with_an_errno_and_a_code(arena: Arena) -> None:
    """Of a guest that was launched, with any numbers and addresses where its struct has some."""

    def one(rng: random.Random) -> str:
        arena.begin()
        guest = SevGuest(machine, 1).init()
        guest.launch_start()
        said = ""
        for _ in range(CALLS):
            arena.put(512, _struct(rng, arena))
            data = rng.choice((arena.address + 512, arena.address + 512, arena.somewhere(rng)))
            fd = rng.choice((machine.sev, machine.sev, machine.sev, rng.choice(_SMALL)))
            arena.put(0, struct.pack("<IIQII", rng.randrange(26), 0, data, 0, fd))
            request = rng.choice(_ENCRYPTED)
            said = _answer(machine.kernel, guest.vm, request, arena.address)
        machine.close(guest.vm)
        return said

    with Machine(host_named("csv")) as machine:
        each("SEV commands", one, {"done", "EINVAL", "EFAULT", "EIO"}, share=0.1)


@pytest.mark.parametrize("fd", [1 << 31, (1 << 32) - 1])
def test_a_number_that_no_descriptor_has_is_ebadf(fd: int) -> None:
    with Machine(host_named("sev")) as machine:
        guest = SevGuest(machine, 1).init()
        guest.sev_fd = fd
        assert guest.launch_start() == ("EBADF", UNASKED)


_ENCRYPTED = (MEMORY_ENCRYPT_OP, MEMORY_ENCRYPT_OP, MEMORY_ENCRYPT_OP, REG_REGION, UNREG_REGION)


def _answer(kernel: Kernel, fd: int, request: int, arg: int) -> str:
    """In a word; and within the bounds."""
    start = time.process_time()
    tracemalloc.start()
    try:
        kernel.ioctl(fd, request, arg)
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    finally:
        taken = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert taken < MOST_BYTES
        assert time.process_time() - start < LONGEST_S
    return "done"


def _struct(rng: random.Random, arena: Arena) -> bytes:
    """Words that are numbers, addresses or noise, over and over."""
    return b"".join(_word(rng, arena) for _ in range(10)) * 4


def _word(rng: random.Random, arena: Arena) -> bytes:
    match rng.randrange(4):
        case 0:
            return struct.pack("<Q", rng.choice(_SMALL))
        case 1:
            return struct.pack("<II", rng.choice(_SMALL), rng.choice(_SMALL))
        case 2:
            return struct.pack("<Q", arena.somewhere(rng))
        case _:
            return rng.choice(PIECES)[:8].ljust(8, b"\0")
