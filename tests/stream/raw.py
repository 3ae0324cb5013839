"""Streams put together from bytes, which remember what they are made of; and arbitrary ones."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field
from typing import NamedTuple

from hypothesis import strategies as st

BLOCKS = {"pc.ram": 300, "b": 40, "vga.vram": 7}
PAGE = 4096
HDR, PDH, SESSION = b"h" * 52, b"p" * 33, b"s" * 17
FLAGS = {"zero": 0x02, "normal": 0x08, "xbzrle": 0x40, "compressed": 0x100}
ENCRYPTED = {"v2": 0x200, "v3": 0x200, "v4": 0x200, "csv": 0x400}


class Record(NamedTuple):
    """A page as it was sent, and the bytes of its record."""

    kind: str
    block: str
    page: int
    size: int


class Made(NamedTuple):
    """A stream, its records by call, and the dialect of the encrypted ones."""

    data: bytes
    calls: list[list[Record]]
    dialect: str


def counted(name: str) -> bytes:
    return bytes([len(name)]) + name.encode()


def head(blocks: dict[str, int] | None = None, *, machine: str = "pc") -> bytes:
    """Up to the end of the call that sets RAM up."""
    rows = BLOCKS if blocks is None else blocks
    table = b"".join(counted(name) + struct.pack(">Q", n * PAGE) for name, n in rows.items())
    return (
        b"QEVM\0\0\0\3\7"
        + struct.pack(">I", len(machine))
        + machine.encode()
        + b"\1\0\0\0\2\3ram\0\0\0\0\0\0\0\4"
        + struct.pack(">Q", sum(rows.values()) * PAGE | 4)
        + table
        + eos()
    )


def eos() -> bytes:
    return struct.pack(">QBI", 0x10, 0x7E, 2)


def call(records: bytes, *, last: bool = False) -> bytes:
    return bytes([3 if last else 2]) + b"\0\0\0\2" + records + eos()


@dataclass
class Ram:
    """Records, as QEMU of a dialect writes them."""

    dialect: str = "v3"
    data: bytearray = field(default_factory=bytearray)
    records: list[Record] = field(default_factory=list)
    block: str = ""
    session_sent: bool = False

    def add(self, kind: str, block: str, page: int, payload: bytes, flag: int = 0) -> None:
        flag = flag or FLAGS[kind]
        name = b"" if block == self.block else counted(block)
        header = struct.pack(">Q", page * PAGE | flag | (0 if name else 0x20))
        self.block = block
        self.data += header + name + payload
        self.records.append(Record(kind, block, page, len(header + name + payload)))

    def page(self, kind: str, block: str, page: int, fill: int = 1) -> None:
        """A page of any kind; ``fill`` varies it."""
        if kind == "encrypted":
            self.encrypted(block, page)
            return
        encoded = bytes([fill % 100, 1 + fill % 20]) + bytes(1 + fill % 20)
        packed = zlib.compress(bytes([fill % 256]) * PAGE)
        payload = {
            "zero": b"\0",
            "normal": bytes([fill % 256]) * PAGE,
            "xbzrle": struct.pack(">BH", 1, len(encoded)) + encoded,
            "compressed": struct.pack(">I", len(packed)) + packed,
        }
        self.add(kind, block, page, payload[kind])

    def encrypted(self, block: str, page: int, kind: int = 1, hdr: bytes = HDR) -> None:
        session = b"" if self.session_sent else session_bytes()
        self.session_sent = True
        packet = struct.pack(">I", len(hdr)) + hdr + struct.pack(">I", PAGE) + b"\xee" * PAGE
        word = b"" if self.dialect == "v2" else struct.pack(">I", kind)
        self.add("encrypted", block, page, word + session + packet, ENCRYPTED[self.dialect])

    def take(self) -> bytes:
        data, self.data = bytes(self.data), bytearray()
        return data


def session_bytes() -> bytes:
    return struct.pack(">II", 1, len(PDH)) + PDH + struct.pack(">I", len(SESSION)) + SESSION


kinds = st.sampled_from(["zero", "normal", "xbzrle", "compressed", "encrypted"])


@st.composite
def streams(draw: st.DrawFn, most: int = 40) -> Made:
    """Sound ones: runs of like records, and single ones of any kind."""
    ram = Ram(draw(st.sampled_from(sorted(ENCRYPTED))))
    calls = []
    for _ in range(draw(st.integers(0, 4))):
        begin = len(ram.records)
        for _ in range(draw(st.integers(0, 5))):
            _some(draw, ram, most)
        calls.append((ram.take(), ram.records[begin:]))
    calls.append((ram.take(), []))
    sections = [call(data, last=i == len(calls) - 1) for i, (data, _) in enumerate(calls)]
    data = head() + b"".join(sections) + b"\0"
    return Made(data, [records for _, records in calls], ram.dialect)


def _some(draw: st.DrawFn, ram: Ram, most: int) -> None:
    block, kind = draw(st.sampled_from(sorted(BLOCKS))), draw(kinds)
    if draw(st.booleans()):
        first = draw(st.integers(0, BLOCKS[block] - 1))
        for page in range(first, min(BLOCKS[block], first + draw(st.integers(1, most)))):
            ram.page(kind, block, page, page)
    else:
        ram.page(kind, block, draw(st.integers(0, BLOCKS[block] - 1)), draw(st.integers(0, 999)))
