"""Whatever a file holds: a result, or one StreamError that says where; in bounded time and memory.

``make soak-fuzz-streams`` sets KVMENC_FUZZ_INPUTS to a million.
"""

from __future__ import annotations

import os
import resource
import struct
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from kvmenc.errors import StreamError
from kvmenc.stream import StreamReader, summarize
from tests.stream.fuzz import WHOLE, ZERO, Fuzz, described, kind_of
from tests.stream.raw import BLOCKS, PAGE, Ram, call, counted, eos, head
from tests.stream.reading import opened, summary
from tests.stream.test_dialects import fixture

if TYPE_CHECKING:
    from pathlib import Path

INPUTS = int(os.environ.get("KVMENC_FUZZ_INPUTS", "1000"))
SEED = os.environ.get("KVMENC_FUZZ_SEED", "streams")


def test_no_input_does_anything_but_be_read_or_refused(tmp_path: Path) -> None:
    fuzz, began_s = Fuzz(tmp_path, SEED), time.process_time()
    for name, data in fuzz.seeds.items():
        if name != "record":
            assert summary(data).bytes_total == len(data)
    read, refused, kinds = Counter[str](), Counter[str](), Counter[str]()
    for _ in range(INPUTS):
        seed, text = fuzz.one()
        assert len(text) <= 500
        assert text.isprintable()
        (refused if text else read)[seed] += 1
        kinds.update([kind_of(text)] if text else [])
    print(f"\n{INPUTS} inputs, {INPUTS / (time.process_time() - began_s):,.0f} a second")
    for seed in fuzz.seeds:
        print(f"{seed:<14}{read[seed]:>9} read{refused[seed]:>9} refused")
    print(*(f"{times:>9} {kind[:68]}" for kind, times in kinds.most_common(30)), sep="\n")
    assert INPUTS // 100 < refused.total() < INPUTS * 99 // 100
    assert all(refused[seed] for seed in fuzz.seeds), "each is broken now and then"
    assert len(kinds) > 30, "many ways to be wrong were tried"


BROKEN = {
    "not-a-stream": (b"\x1f\x8b" + WHOLE, "at offset 0x0: expected a migration stream, QEVM"),
    "version": (WHOLE.replace(b"\0\0\0\3\7", b"\0\0\0\4\7", 1), "expected version 3"),
    "empty": (b"", "the migration has failed, or not begun"),
    "cancelled": (
        head() + call(ZERO),
        "where a section is to begin: the migration failed, was can",
    ),
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
    "ends-early": (head() + call(ZERO) + b"\0", "RAM has not ended"),
    "footer": (head() + b"\2\0\0\0\2" + eos()[:-1] + b"\3", r"expected section number 2"),
    "other-section": (head() + b"\1\0\0\0\3\4vfio" + b"\0" * 8, "'vfio' stands before"),
    "dirty-bitmaps": (
        head() + b"\1\0\0\0\3\x0cdirty-bitmap" + b"\0" * 8,
        "migrate without the capability dirty-bitmaps",
    ),
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


def test_a_device_is_as_long_as_it_is_described() -> None:
    report = summary(described())
    assert (report.why_unread, report.bytes_total) == ("", len(described()))
    (cpu,) = report.devices
    assert (cpu.name, cpu.bytes) == ("cpu", 5 + 4 + 8 + 4 + 12 + 5)


def test_a_background_snapshot_has_no_end_of_ram(tmp_path: Path) -> None:
    data = described().replace(call(ZERO, last=True), call(ZERO), 1)
    report = summary(data)
    assert (report.why_unread, report.bytes_total) == ("", len(data))
    assert ([it.stopped for it in report.rounds], report.passes) == ([False], 1)
    with pytest.raises(StreamError, match="the stream's end, which may tell it, is not there"):
        summary(data[:-1])
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with ThreadPoolExecutor(1) as other:
        other.submit(fifo.write_bytes, data)
        with pytest.raises(StreamError, match="save the stream to a file"):
            summarize(fifo)


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


@pytest.mark.parametrize("still", [True, False])
def test_a_vendor_stream_that_ends_with_a_zero_record_is_refused(still: bool) -> None:
    """Nothing is read past the file's end, where no buffer is longer than the file."""
    ram = Ram("csv")
    for page in range(4):
        ram.page("encrypted", "pc.ram", page)
        ram.page("zero", "pc.ram", 9 + page)
    data = head() + call(ram.take())[:-13]
    with opened(data, still=still) as file, pytest.raises(StreamError, match="the file ends"):
        list(StreamReader(file, "test", capacity_bytes=len(data)))


def test_a_huge_guest_takes_no_memory_for_pages_that_are_not_sent() -> None:
    blocks = {"a": 1 << 31}
    zero = struct.pack(">Q", 0x02) + counted("a") + b"\0"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    report = summary(head(blocks) + call(zero, last=True) + b"\0")
    assert [(it.times, it.pages) for it in report.sendings] == [(0, (1 << 31) - 1), (1, 1)]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10


def test_rounds_of_many_ramblocks_are_counted_and_not_all_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("kvmenc.stream.rounds._MOST_ROWS", 3)
    pair = ZERO + struct.pack(">Q", 0x02) + counted("pc.ram") + b"\0"
    report = summary(head() + call(pair) * 5 + call(b"", last=True) + b"\0")
    assert (len(report.rounds), report.rounds_total, report.pages.zero) == (2, 6, 10)
    assert all(len(it.blocks) == 2 for it in report.rounds)


def test_many_empty_calls_are_quick() -> None:
    """A guest of 4 TiB does not make each of them dear."""
    data = head({"a": 1 << 30}) + call(b"") * 20_000 + call(b"", last=True) + b"\0"
    start = time.monotonic()
    with opened(data) as file:
        assert sum(1 for _ in StreamReader(file, "test")) == 3 + 2 * 20_001 + 1
    assert time.monotonic() - start < 10
