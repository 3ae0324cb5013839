"""Broken streams and records, made of sound ones; each read or refused, within bounds."""

from __future__ import annotations

import io
import random
import re
import resource
import struct
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from kvmenc.errors import KvmencError
from kvmenc.memory.words import from_pages
from kvmenc.rehearsal.records import Opener, PagesRecord, RecordRefused, Sealer
from kvmenc.stream import (
    Dialect,
    PrivateRange,
    SessionData,
    StreamReader,
    StreamWriter,
    WatchedPage,
    rebuild,
    summarize,
)
from tests.stream.raw import BLOCKS, ENCRYPTED, PAGE, PDH, SESSION, Ram, call, counted, head
from tests.stream.test_dialects import fixture

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["WHOLE", "ZERO", "Fuzz", "Outcome", "described", "kind_of"]

#: Reading one of these small inputs may take no longer, nor more memory in all.
LONGEST_S, MOST_BYTES = 5.0, 512 << 20
ZERO = struct.pack(">Q", 0x02) + counted("b") + b"\0"
WHOLE = head() + call(ZERO, last=True) + b"\0"
KEY = bytes(range(16))
_NUMBERS = (0, 1, 0x10, 0x200, 0x400, 0x422, 2**31, 2**32 - 1, 2**63, 2**64 - 1)
#: So many of those that were read: it takes ten times as long.
_REBUILT = 0.3
#: Mostly it is not told.
_DIALECTS = (*[None] * 15, *Dialect)


class Outcome(NamedTuple):
    """Of one input.

    Attributes:
        seed: what it was made of.
        refused: for what; empty: it was read.
    """

    seed: str
    refused: str


def sound(dialect: str) -> bytes:
    """Some of everything: single records of each kind, a run, and small ones that change."""
    ram = Ram(dialect)
    kinds = ["zero", "normal", "xbzrle", "compressed", "encrypted"]
    for number in range(15):
        block = sorted(BLOCKS)[number * number % 3]
        ram.page(kinds[number % 5], block, number % BLOCKS[block], number)
    for page in range(40):
        ram.page("zero", "pc.ram", page)
    for number in range(90):
        block = sorted(BLOCKS)[number % 3]
        ram.page("xbzrle" if number % 2 else "zero", block, number % 7, number)
    first = call(ram.take())
    for page in range(10):
        ram.page("zero", "b", page)
    return head() + first + call(ram.take(), last=True) + b"\0"


def written() -> bytes:
    """As ``kvmenc dry-run --stream`` writes."""
    file, pages = io.BytesIO(), np.arange(3)
    writer = StreamWriter(file, list(BLOCKS.items()), SessionData(1, PDH, SESSION))
    for stopped in (False, True):
        writer.begin_round(stopped=stopped)
        writer.zero_pages("pc.ram", np.arange(30))
        writer.normal_pages("b", pages, np.ones((3, PAGE), np.uint8))
        packets = np.zeros((3, 52), np.uint8), np.full((3, PAGE), 0xEE, np.uint8)
        writer.encrypted_pages("pc.ram", 40 + pages, *packets)
    words = from_pages(40 + pages, 300)
    writer.private_map([PrivateRange(0, 300, words), PrivateRange(512, 300, words)])
    writer.end()
    return file.getvalue()


def described(size: int = 2, array_len: int = 2) -> bytes:
    """A device of four bytes, a subsection of one more, and what the stream says of them."""
    device = b"\4\0\0\0\5\3cpu" + b"\0" * 8 + b"abcd" + b"\5\5cpu/x\0\0\0\1e" + b"\x7e\0\0\0\5"
    field = f'{{"name": "a", "size": {size}, "array_len": {array_len}}}'
    sub = '{"vmsd_name": "cpu/x", "version": 1, "fields": [{"name": "b", "size": 1}]}'
    text = (
        f'{{"page_size": 4096, "devices": [{{"name": "cpu", "instance_id": 0, "fields": [{field}],'
        f' "subsections": [{sub}]}}]}}'
    ).encode()
    return WHOLE[:-1] + device + b"\0\6" + struct.pack(">I", len(text)) + text


def packets() -> bytes:
    """A sealed record of the line of a rehearsal."""
    numbers, rows = np.arange(2), np.ones((2, PAGE), np.uint8)
    record = PagesRecord(block=0, encrypted=numbers, headers=rows[:, :52], transports=rows)
    return Sealer(KEY).seal(record.encode())


class Fuzz:
    """Makes inputs and feeds them.

    Args:
        folder: for the one file that holds each of them.
        seed: of all chance.

    Attributes:
        seeds: what inputs are made of, by name.
    """

    def __init__(self, folder: Path, seed: str) -> None:
        self._rng, self._path = random.Random(seed), folder / "stream"
        self.seeds = {f"sound {it}": sound(it) for it in ENCRYPTED}
        self.seeds |= {f"fixture {it}": fixture(it) for it in ("v2", "v3", "v4", "csv")}
        self.seeds |= {"devices": described(), "dry-run": written(), "record": packets()}
        self._streams = [it for it in self.seeds if it != "record"]

    def one(self) -> Outcome:
        """The next input."""
        name = self._rng.choice(list(self.seeds))
        data = self._mutated(self.seeds[name])
        start, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        block = "ram" if name.startswith("fixture") else "b"
        refused = self._record(data) if name == "record" else self._stream(data, block)
        assert time.monotonic() - start < LONGEST_S
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        assert grown << 10 < 2 * MOST_BYTES
        return Outcome(name, refused)

    def _stream(self, data: bytes, block: str) -> str:
        """Told, and what is sound is rebuilt; mapped, or read as if somebody wrote it."""
        rng, path = self._rng, self._path
        path.write_bytes(data)
        still = rng.random() < 0.5
        try:
            with nullcontext() if still else path.open("ab"):
                watched = (WatchedPage(block, 4096),)
                report = summarize(path, dialect=rng.choice(_DIALECTS), pages=watched)
            if report.ram_bytes < MOST_BYTES and rng.random() < _REBUILT:
                with path.open("rb", buffering=0) as file:
                    rebuild(StreamReader(file, "test"))
        except KvmencError as error:
            return str(error)
        return ""

    def _record(self, data: bytes) -> str:
        """Whatever was changed is found out: nothing else is ever opened."""
        try:
            assert Opener(KEY).open(data) == Opener(KEY).open(self.seeds["record"])
        except RecordRefused as error:
            return str(error)
        return ""

    def _mutated(self, seed: bytes) -> bytes:
        """Bytes changed, numbers put in, stretches cut out, doubled or exchanged, ends cut off."""
        rng, data = self._rng, bytearray(seed)
        for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
            if not data:
                break
            at = rng.randrange(len(data) if rng.random() < 0.5 else min(400, len(data)))
            _CHANGES[rng.randrange(len(_CHANGES))](self, data, at)
        return bytes(data)

    def _flip(self, data: bytearray, at: int) -> None:
        data[at] ^= 1 << self._rng.randrange(8)

    def _number(self, data: bytearray, at: int) -> None:
        data[at : at + 8] = self._rng.choice(_NUMBERS).to_bytes(8, "big")

    def _cut(self, data: bytearray, at: int) -> None:
        del data[at : at + self._size()]

    def _double(self, data: bytearray, at: int) -> None:
        data[at:at] = data[at : at + self._size()] * self._rng.randrange(1, 4)

    def _exchange(self, data: bytearray, at: int) -> None:
        other, size = self.seeds[self._rng.choice(self._streams)], self._size()
        data[at : at + size] = other[at : at + size]

    def _end(self, data: bytearray, at: int) -> None:
        del data[at:]

    def _size(self) -> int:
        return self._rng.choice((1, 2, 4, 8, 9, 40, 4104))


_CHANGES = (Fuzz._flip, Fuzz._number, Fuzz._cut, Fuzz._double, Fuzz._exchange, Fuzz._end)


def kind_of(refused: str) -> str:
    """What an input was refused for, without the numbers and names of that one."""
    text = refused.partition(": ")[2].partition(", got ")[0]
    return re.sub(r"block [^ ]+|RAMBlock [^ :]+:|'[^ ]+'|0x[0-9a-f]+|\d+", "#", text)
