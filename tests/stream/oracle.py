"""The slow obvious way: one record at a time, by ``struct``, of a stream that is sound."""

from __future__ import annotations

import struct
from collections import Counter
from typing import TYPE_CHECKING

from tests.stream.raw import BLOCKS, PAGE, Record

if TYPE_CHECKING:
    from collections.abc import Iterator

_KINDS = {0x02: "zero", 0x08: "normal", 0x40: "xbzrle", 0x100: "compressed"}


class Parser:
    """Reads what ``raw.streams`` makes; the dialect is told."""

    def __init__(self, data: bytes, dialect: str) -> None:
        self.data, self.at, self.dialect = data, 0, dialect
        self.block, self.session_seen = "", False

    def number(self, size: int) -> int:
        self.at += size
        return int.from_bytes(self.data[self.at - size : self.at], "big")

    def skip(self, size: int) -> None:
        self.at += size

    def text(self) -> str:
        size = self.number(1)
        self.skip(size)
        return self.data[self.at - size : self.at].decode()

    def calls(self) -> Iterator[list[Record]]:
        assert self.data[:9] == b"QEVM\0\0\0\3\7"
        self.at = 9
        self.skip(self.number(4))
        while (section := self.number(1)) != 0:
            assert self.number(4) == 2
            if section == 1:
                assert (self.text(), self.number(4), self.number(4)) == ("ram", 0, 4)
            records = list(self.records())
            assert struct.unpack_from(">BI", self.data, self.at) == (0x7E, 2)
            self.at += 5
            if section != 1:
                yield records
        assert self.at == len(self.data)

    def records(self) -> Iterator[Record]:
        while True:
            start = self.at
            header = self.number(8)
            flags, offset = header % PAGE, header // PAGE * PAGE
            if flags == 0x10:
                return
            if flags == 0x04:
                while offset:
                    self.text()
                    offset -= self.number(8)
                continue
            if not flags & 0x20:
                self.block = self.text()
            kind = _KINDS.get(flags & ~0x20, "encrypted")
            self.payload(kind)
            yield Record(kind, self.block, offset // PAGE, self.at - start)

    def payload(self, kind: str) -> None:
        if kind in {"zero", "normal"}:
            self.at += {"zero": 1, "normal": PAGE}[kind]
        elif kind == "xbzrle":
            assert self.number(1) == 1
            self.skip(self.number(2))
        elif kind == "compressed":
            self.skip(self.number(4))
        else:
            self.encrypted()

    def encrypted(self) -> None:
        if self.dialect != "v2":
            assert self.number(4) == 1
        if not self.session_seen:
            self.session_seen = True
            self.number(4)
            self.skip(self.number(4))
            self.skip(self.number(4))
        self.skip(self.number(4))
        assert self.number(4) == PAGE
        self.at += PAGE


def rounds_of(calls: list[list[Record]]) -> list[list[int]]:
    """Numbers of the calls of each round: the fewest rounds with no page in two calls of one."""
    rounds: list[list[int]] = []
    seen: set[tuple[str, int]] = set()
    for number, records in enumerate(calls):
        pages = {(it.block, it.page) for it in records}
        if not rounds or number == len(calls) - 1 or pages & seen:
            rounds.append([])
            seen = set()
        rounds[-1].append(number)
        seen |= pages
    return rounds


def sendings_of(calls: list[list[Record]], npages: int) -> dict[int, int]:
    """How many pages were sent how often."""
    sends = Counter((it.block, it.page) for records in calls for it in records)
    times = Counter(sends.values())
    return {**times, **({0: npages - len(sends)} if npages > len(sends) else {})}


def passes_of(calls: list[list[Record]]) -> int:
    """How often the cursor began anew: a call goes on from where it stood, and round once."""
    places = list(BLOCKS)
    passes, cursor = 0, (-1, -1)
    for records in calls:
        pages = sorted((places.index(it.block), it.page) for it in records)
        order = [it for it in pages if it > cursor] + [it for it in pages if it <= cursor]
        passes += bool(order) and (not passes or order[-1] <= cursor)
        cursor = order[-1] if order else cursor
    return passes
