"""Whatever a file holds: a result, or one StreamError that says where; in bounded time and memory.

``make soak-fuzz-streams`` sets KVMENC_FUZZ_INPUTS to a million.
"""

from __future__ import annotations

import os
import random
import resource
import struct
import time

import pytest

from kvmenc.errors import KvmencError, StreamError
from kvmenc.stream import StreamReader, WatchedPage, rebuild
from tests.stream.raw import BLOCKS, ENCRYPTED, PAGE, Ram, call, counted, eos, head
from tests.stream.reading import opened, summary
from tests.stream.test_dialects import fixture

INPUTS = int(os.environ.get("KVMENC_FUZZ_INPUTS", "1500"))
#: Reading one of these small inputs may take no longer, nor more memory in all.
LONGEST_S, MOST_BYTES = 5.0, 512 << 20


def sound(dialect: str) -> bytes:
    """Some of everything."""
    ram = Ram(dialect)
    kinds = ["zero", "normal", "xbzrle", "compressed", "encrypted"]
    for number in range(60):
        block = sorted(BLOCKS)[number * number % 3]
        ram.page(kinds[number % 5], block, number % BLOCKS[block], number)
    for page in range(40):
        ram.page("zero", "pc.ram", page)
    for number in range(300):
        block = sorted(BLOCKS)[number % 3]
        ram.page("xbzrle" if number % 2 else "zero", block, number % 7, number)
    first = call(ram.take())
    for page in range(10):
        ram.page("zero", "b", page)
    return head() + first + call(ram.take(), last=True) + b"\0"


def mutated(rng: random.Random, seeds: list[bytes]) -> bytes:
    """Bytes changed, numbers put in, stretches cut out, doubled or exchanged, ends cut off."""
    data = bytearray(rng.choice(seeds))
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        at = rng.randrange(len(data)) if rng.random() < 0.5 else rng.randrange(min(400, len(data)))
        size = rng.choice((1, 2, 4, 8, 9, 40, 4104))
        what = rng.randrange(6)
        if what == 0:
            data[at] ^= 1 << rng.randrange(8)
        elif what == 1:
            number = rng.choice(
                (0, 1, 0x10, 0x200, 0x400, 0x422, 2**31, 2**32 - 1, 2**63, 2**64 - 1)
            )
            data[at : at + 8] = number.to_bytes(8, "big")
        elif what == 2:
            del data[at : at + size]
        elif what == 3:
            data[at:at] = data[at : at + size] * rng.randrange(1, 4)
        elif what == 4:
            other = rng.choice(seeds)
            data[at : at + size] = other[at : at + size]
        else:
            del data[at:]
        if not data:
            break
    return bytes(data)


def test_no_input_does_anything_but_be_read_or_refused() -> None:
    rng = random.Random(os.environ.get("KVMENC_FUZZ_SEED", "streams"))
    seeds = [sound(it) for it in ENCRYPTED] + [fixture(it) for it in ("v2", "v3", "v4", "csv")]
    seeds.append(described())
    for one in seeds:
        assert summary(one).bytes_total == len(one)
    outcomes = [outcome(mutated(rng, seeds), rng) for _ in range(INPUTS)]
    refused = [it for it in outcomes if it]
    assert INPUTS // 100 < len(refused) < INPUTS * 99 // 100
    assert all(it.isprintable() and len(it) <= 500 for it in refused)
    # Many are alike only in what was found: each names an offset of its own.
    assert len(set(refused)) > len(refused) // 10


def outcome(data: bytes, rng: random.Random) -> str:
    """What it is refused for; nothing if it is read. Both within bounds."""
    start, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    dialect = rng.choice((None, None, None, "qemu", "v2", "v3", "v4", "csv"))
    refused = ""
    try:
        report = summary(data, dialect, (WatchedPage("b", 4096),))
        if report.ram_bytes < MOST_BYTES:
            with opened(data) as file:
                rebuild(StreamReader(file, "test"))
    except KvmencError as error:
        refused = str(error)
    assert time.monotonic() - start < LONGEST_S
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10 < 2 * MOST_BYTES
    return refused


ZERO = struct.pack(">Q", 0x02) + counted("b") + b"\0"
WHOLE = head() + call(ZERO, last=True) + b"\0"

BROKEN = {
    "not-a-stream": (b"\x1f\x8b" + WHOLE, "at offset 0x0: expected a migration stream, QEVM"),
    "version": (WHOLE.replace(b"\0\0\0\3\7", b"\0\0\0\4\7", 1), "expected version 3"),
    "machine": (b"QEVM\0\0\0\3\7\xff\xff\xff\xff", "a machine type of at most 255 bytes"),
    "section": (head() + b"\x66", "expected a section, got a byte 0x66"),
    "unknown-flags": (head() + call(struct.pack(">Q", 0x802) + counted("b") + b"\0"), "0x802"),
    "hook": (head() + call(struct.pack(">Q", 0x80)), "expected a page, the block table"),
    "unknown-block": (head() + call(ZERO.replace(b"\1b", b"\1c")), "got b'c'"),
    "no-block": (head() + call(struct.pack(">QB", 0x22, 0)), "name before the first page"),
    "beyond": (
        head() + call(struct.pack(">Q", BLOCKS["b"] * PAGE | 2) + counted("b") + b"\0"),
        "page 0x28 of 0x28",
    ),
    "not-zero": (head() + call(ZERO[:-1] + b"\1"), "a zero page whose byte is not 0"),
    "xbzrle": (head() + call(struct.pack(">Q", 0x40) + b"\1b\2\0\1"), "xbzrle's encoding"),
    "xbzrle-size": (head() + call(struct.pack(">Q", 0x40) + b"\1b\1\x10\1"), "at most 4096"),
    "compressed": (head() + call(struct.pack(">Q", 0x100) + b"\1b\0\0\x20\0"), "at most 4110"),
    "cut-off": (WHOLE[:-16], "the file ends"),
    "never-ends": (head() + call(ZERO), "the file ends"),
    "ends-early": (head() + call(ZERO) + b"\0", "RAM has not ended"),
    "footer": (head() + b"\2\0\0\0\2" + eos()[:-1] + b"\3", r"expected section number 2"),
    "other-section": (head() + b"\1\0\0\0\3\4vfio" + b"\0" * 8, "'vfio' stands before"),
    "table-total": (head({"a": 1 << 40}), "bytes of RAM"),
    "table-twice": (head({"a": 1}) + call(struct.pack(">Q", 0x1004)), "a second table"),
    "blob": (
        head() + call(struct.pack(">QBsII", 0x200, 1, b"b", 1, 5) + b"\xff" * 99),
        "no dialect",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_wrong_is_said_in_a_line_with_its_offset(name: str) -> None:
    data, told = BROKEN[name]
    with pytest.raises(StreamError, match=told) as caught:
        summary(data)
    assert "at offset 0x" in str(caught.value)
    assert str(caught.value).isprintable()


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


def test_a_device_is_as_long_as_it_is_described() -> None:
    report = summary(described())
    assert (report.why_unread, report.bytes_total) == ("", len(described()))
    (cpu,) = report.devices
    assert (cpu.name, cpu.bytes) == ("cpu", 5 + 4 + 8 + 4 + 12 + 5)


@pytest.mark.parametrize(("size", "times"), [(-1, 2), (2**41, 1), (2, -1), (2**40, 2**40)])
def test_sizes_that_no_device_has_are_refused(size: int, times: int) -> None:
    with pytest.raises(StreamError, match=r"description of the devices|the file ends"):
        summary(described(size, times))


@pytest.mark.parametrize("name", [b"\xf5", b"\\ud800", b"\n", b'"', b"[" * 100_000])
def test_names_that_no_device_has_are_refused(name: bytes) -> None:
    data = described().replace(b'cpu/x"', name + b'"', 1)
    size = len(data) - data.index(b'{"page_size"')
    at = len(data) - size
    with pytest.raises(StreamError):
        summary(data[: at - 4] + struct.pack(">I", size) + data[at:])


def test_without_a_description_reading_ends_with_ram() -> None:
    device = b"\4\0\0\0\5\3cpu" + b"\0" * 8 + b"state" + b"\x7e\0\0\0\5"
    data = WHOLE[:-1] + device + b"\0"
    report = summary(data)
    assert "'cpu' does not tell its length" in report.why_unread
    assert report.bytes_total == len(WHOLE) - 1
    assert report.bytes.unread == len(device) + 1


def test_every_cut_of_a_stream_is_refused() -> None:
    """But for those behind RAM's end, which is the stream's own."""
    data = fixture("csv")
    for size in range(0, len(data) - 1, 37):
        with pytest.raises(StreamError):
            summary(data[:size])


def test_a_huge_guest_takes_no_memory_for_pages_that_are_not_sent() -> None:
    blocks = {"a": 1 << 31}
    zero = struct.pack(">Q", 0x02) + counted("a") + b"\0"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    report = summary(head(blocks) + call(zero, last=True) + b"\0")
    assert [(it.times, it.pages) for it in report.sendings] == [(0, (1 << 31) - 1), (1, 1)]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10


def test_many_empty_calls_are_quick() -> None:
    """A guest of 4 TiB does not make each of them dear."""
    data = head({"a": 1 << 30}) + call(b"") * 20_000 + call(b"", last=True) + b"\0"
    start = time.monotonic()
    with opened(data) as file:
        assert sum(1 for _ in StreamReader(file, "test")) == 3 + 2 * 20_001 + 1
    assert time.monotonic() - start < 10
