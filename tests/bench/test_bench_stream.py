"""How fast streams are read and told: runs of like records, and mixes that are not."""

from __future__ import annotations

import struct
import subprocess
import time
from functools import partial
from typing import TYPE_CHECKING, cast

import numpy as np
import pytest

from kvmenc.stream import Batch, SessionData, StreamReader, StreamWriter, summarize
from tests.stream.raw import PAGE, call, counted, head

if TYPE_CHECKING:
    from collections.abc import Callable
    from io import RawIOBase
    from pathlib import Path

pytestmark = pytest.mark.bench

BLOCKS = {"pc.ram": 1 << 20, "b": 1 << 20}
ZERO, PAGES = 1 << 22, 1 << 15


def zeros() -> bytes:
    """As QEMU sends a guest of 16 GiB that is empty."""
    records = np.zeros(ZERO, [("header", ">u8"), ("value", "u1")])
    records["header"] = (np.arange(ZERO, dtype=np.uint64) % (1 << 20)) << 12 | 0x22
    return struct.pack(">Q", 0x02) + counted("pc.ram") + b"\0" + records.tobytes()


def zeros_of_two_blocks() -> bytes:
    return b"".join(
        struct.pack(">Q", page << 12 | 2) + counted("b" if page % 2 else "pc.ram") + b"\0"
        for page in range(1 << 18)
    )


def zeros_and_differences() -> bytes:
    return (
        struct.pack(">Q", 0x02)
        + counted("b")
        + b"\0"
        + b"".join(
            struct.pack(">QBH", page << 12 | 0x60, 1, 5)
            + bytes(5)
            + struct.pack(">Q", page << 12 | 0x22)
            + b"\0"
            for page in range(1 << 17)
        )
    )


def zeros_and_pages() -> bytes:
    content = bytes(PAGE)
    return (
        struct.pack(">Q", 0x02)
        + counted("b")
        + b"\0"
        + b"".join(
            struct.pack(">QBQ", page << 12 | 0x22, 0, page << 12 | 0x28) + content
            for page in range(PAGES)
        )
    )


def write_pages(path: Path, *, encrypted: bool) -> None:
    contents, headers = np.ones((1024, PAGE), np.uint8), np.ones((1024, 52), np.uint8)
    with path.open("wb") as file:
        writer = StreamWriter(file, list(BLOCKS.items()), SessionData(1, b"p", b"s"))
        writer.begin_round(stopped=True)
        for first in range(0, PAGES, 1024):
            pages = np.arange(first, first + 1024)
            if encrypted:
                writer.encrypted_pages("pc.ram", pages, headers, contents)
            else:
                writer.normal_pages("pc.ram", pages, contents)
        writer.end()


def best_s(call: Callable[[], object]) -> float:
    """Of the CPU's time: what else the machine does counts little, then."""
    took = []
    for _ in range(3):
        start = time.process_time()
        call()
        took.append(time.process_time() - start)
    return min(took)


def read(path: Path) -> int:
    with path.open("rb", buffering=0) as file:
        return sum(it.kinds.size for it in StreamReader(file, "x") if isinstance(it, Batch))


def read_not_mapped(path: Path) -> None:
    """Somebody has it open to write, so that there is no lease on it."""
    with path.open("r+b"):
        read(path)


def read_from_a_pipe(path: Path) -> None:
    with subprocess.Popen(["cat", path], stdout=subprocess.PIPE, bufsize=0) as cat:
        assert cat.stdout is not None
        for _ in StreamReader(cast("RawIOBase", cat.stdout), "x"):
            pass


def told_otherwise(path: Path) -> None:
    """Read, and from a pipe; what the reader's process takes of the CPU, as above."""
    records = read(path)
    for what, by in (("  not mapped", read_not_mapped), ("  from a pipe", read_from_a_pipe)):
        print(f"{what:<28}{records / best_s(partial(by, path)) / 1e6:8.2f} M records/s read")


def measured(what: str, path: Path) -> float:
    """Millions of records a second, read alone."""
    records, size = read(path), path.stat().st_size
    alone, told = best_s(lambda: read(path)), best_s(lambda: summarize(path))
    print(
        f"{what:<28}{records / alone / 1e6:8.2f} M records/s read, {records / told / 1e6:6.2f} M "
        f"told, {size / alone / 1e9:5.2f} GB/s"
    )
    return records / alone / 1e6


def test_streams(tmp_path: Path) -> None:
    path = tmp_path / "stream"
    print()
    speeds = {}
    for make in (zeros, zeros_of_two_blocks, zeros_and_differences, zeros_and_pages):
        path.write_bytes(head(BLOCKS) + call(make(), last=True) + b"\0")
        speeds[make.__name__] = measured(make.__name__, path)
        told_otherwise(path)
    for encrypted in (False, True):
        write_pages(path, encrypted=encrypted)
        name = "encrypted" if encrypted else "normal"
        speeds[name] = measured(name, path)
        told_otherwise(path)
    assert speeds["zeros"] > 10
    assert min(speeds.values()) > 0.4
