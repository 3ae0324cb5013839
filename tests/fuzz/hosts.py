"""What a kernel says of processes and devices, and what a user or a program says of anything."""

from __future__ import annotations

import os
import socket
import struct
from functools import partial
from typing import TYPE_CHECKING
from unittest import mock

import numpy as np

from kvmenc import procfs, units
from kvmenc.backend.telling import told
from kvmenc.contents.process import ProcessPages
from kvmenc.errors import KvmencError
from kvmenc.link.resolve import resolve
from kvmenc.link.shaping import shapes
from kvmenc.rehearsal.faults import parse_fault
from tests.fuzz.inputs import Parser
from tests.link.recorded import ROOT, attribute

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["PARSERS"]

_MAPS = b"""\
55d0c0000000-55d0c0021000 r-xp 00026000 08:01 131                        /usr/lib/a b.so (deleted)
7f0a1c000000-7f0a1c021000 rw-p 00000000 00:00 0
7ffd00000000-7ffd00021000 rw-p 00000000 00:00 0                          [stack]
"""
_STATUS = b"Name:\tqemu-system-x86\nTgid:\t4711\nTracerPid:\t0\nNSpid:\t4711\t7\n"
_STAT = b"4711 (CPU 0/KVM) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 12345 20 21\n"
_SYSCALL = b"16 0xb 0xae80 0x0 0x0 0x7f0a1c000000 0x0 0x7ffd00000010 0x7f0a1c000020\n"


def _proc(name: str, seed: bytes, ask: Callable[[int], object], folder: Path) -> Parser:
    """A file of /proc that says something else than the kernel does."""
    path = folder / name

    def here(_path: str) -> Path:
        return path

    def read(data: bytes) -> None:
        path.write_bytes(data)
        with mock.patch.object(procfs, "Path", here):
            ask(4711)

    return Parser([seed], read)


def _pagemap(_folder: Path) -> Parser:
    """Entries of any bits are pages somewhere; fewer of them, and the process has ended."""

    def read(data: bytes) -> None:
        fd = os.memfd_create("pagemap")
        pages = ProcessPages(os.getpid(), 4096)
        os.write(fd, data)
        os.dup2(fd, pages._fd)
        os.close(fd)
        try:
            pages.look(np.array([0, 1, 5, 300]))
        finally:
            pages.close()

    return Parser([bytes(range(256)) * 10, b"\xff" * 4096], read)


def _shaping(_folder: Path) -> Parser:
    """A qdisc and a class of any kind, with any options."""
    spec = struct.pack("=BBHhHI", 0, 1, 7, 0, 0, 1000)
    kinds = ["tbf", "htb", "fq", "cake", "netem", "mq", "hfsc", "none"]
    options = [
        attribute(1, spec + bytes(12) + struct.pack("=III", 0, 5, 0)) + attribute(4, bytes(8)),
        attribute(2, struct.pack("=IIIII", 3, 10, 0x10, 0, 0)) + attribute(1, spec * 2 + bytes(20)),
        attribute(7, struct.pack("=I", 9)) + attribute(5, struct.pack("=I", 1)),
        attribute(2, struct.pack("=Q", 2**40)) + attribute(6, struct.pack("=i", -4)),
        bytes(24) + attribute(6, struct.pack("=IiIi", 1, 2, 3, 4)) + attribute(8, bytes(8)),
    ]
    seeds = [bytes([number]) + it for number, it in enumerate([*options, b"", b"", b""])]

    def read(data: bytes) -> None:
        kind = kinds[data[0] % len(kinds)] if data else "tbf"
        attrs = [("TCA_KIND", kind), ("TCA_OPTIONS", data[1:])]
        qdisc = {"handle": 0x100000, "parent": ROOT, "attrs": attrs}
        inner = {"handle": 0x100010, "parent": 0x100000, "attrs": attrs}
        for rate in shapes([qdisc], [inner]).rates:
            units.format_bandwidth(rate.rate_bytes_per_s)

    return Parser(seeds, read)


def _units(_folder: Path) -> Parser:
    """All of them refuse what one refuses, so a text is sound where one of them takes it."""
    readers = (
        units.parse_size_bytes,
        units.parse_bandwidth_bytes_per_s,
        units.parse_time_ms,
        units.parse_page_rate_pps,
        units.parse_share,
    )

    def read(data: bytes) -> None:
        text, refusals = data.decode(errors="surrogateescape"), []
        for reader in readers:
            try:
                reader(text)
            except KvmencError as error:
                refusals.append(error)
        if len(refusals) == len(readers):
            raise refusals[len(data) % len(refusals)]

    return Parser([b"4GiB", b"1.5 GB/s", b"10gbit", b"300ms", b"400pps", b"40%"], read)


def _text(read: Callable[[str], object], *seeds: bytes) -> Parser:
    return Parser(seeds, lambda data: read(data.decode(errors="surrogateescape")))


def _host(_folder: Path) -> Parser:
    """Nobody is asked for names: all of them are taken for unknown."""

    def look_up(name: str, *_args: object, **_more: object) -> object:
        name.encode("idna")  # as the true one begins
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    def read(text: str) -> None:
        with mock.patch.object(socket, "getaddrinfo", look_up):
            resolve(text)

    "\u00e9".encode("idna")  # its tables are the process's, and not the first name's

    return _text(read, b"10.0.0.1", b"[fe80::1%eth0]", b"::ffff:10.0.0.1")


def _telling(_folder: Path) -> Parser:
    """Memory of a program that is recorded, from the address that it hands over."""
    text = b'{"call":"seen","what":"clock","value":1.5}'
    seed = len(text).to_bytes(8, "little") + text

    def read(data: bytes) -> None:
        def memory(address: int, nbytes: int) -> bytes | None:
            return data[address : address + nbytes] if address + nbytes <= len(data) else None

        if told(0, memory) is None:
            raise ValueError("something else")

    return Parser([seed], read, errors=(ValueError,))


PARSERS: dict[str, Callable[[Path], Parser]] = {
    "/proc maps": partial(_proc, "maps", _MAPS, procfs.mappings),
    "/proc status": partial(_proc, "status", _STATUS, procfs.tgid_of),
    "/proc stat": partial(_proc, "stat", _STAT, procfs.start_ticks),
    "/proc syscall": partial(_proc, "syscall", _SYSCALL, procfs.thread_syscall),
    "/proc pagemap": _pagemap,
    "netlink": _shaping,
    "units": _units,
    "--fault": lambda _folder: _text(parse_fault, b"cancel@3", b"send-error@stopped"),
    "host name": _host,
    "told values": _telling,
}
