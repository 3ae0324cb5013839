"""What is read is what was put in; by the slow obvious parser as well."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvmenc.errors import InputError, StreamError
from kvmenc.memory.words import from_pages
from kvmenc.stream import PrivateRange, SessionData, StreamReader, StreamWriter, rebuild
from kvmenc.stream.events import PrivateBitmaps, Session
from tests.stream.oracle import Parser, passes_of, rounds_of, sendings_of
from tests.stream.raw import BLOCKS, PAGE, PDH, SESSION, Made, Ram, call, counted, head, streams
from tests.stream.reading import calls_of, opened, summary

DATA = settings(max_examples=60)


@DATA
@given(streams())
def test_records_are_those_put_in_and_those_of_the_oracle(
    made: Made,
) -> None:
    data, calls, dialect = made
    assert list(Parser(data, dialect).calls()) == calls
    assert calls_of(data) == calls


@pytest.mark.parametrize("dialect", ["v2", "v3", "v4", "csv"])
def test_long_runs_and_mixes_across_the_edges_of_the_buffer(dialect: str) -> None:
    """More than the buffer holds, of each kind; and every two kinds in turn, blocks changing."""
    ram, kinds = Ram(dialect), ["zero", "normal", "xbzrle", "compressed", "encrypted"]
    for kind in kinds:
        for page in range(300):
            ram.page(kind, "pc.ram", page, page)
    for number in range(1500):
        block = "b" if number % 7 < 3 else "pc.ram"
        ram.page(kinds[number * number % 5], block, number % BLOCKS[block], number)
    for number in range(2000):
        ram.page("zero", "b" if number % 2 else "vga.vram", number % 7)
    data = head() + call(ram.take()) + call(b"", last=True) + b"\0"
    assert calls_of(data) == [ram.records, []]
    assert calls_of(data, capacity_bytes=1 << 22) == [ram.records, []]


small = st.tuples(
    st.sampled_from(["zero", "zero", "xbzrle"]), st.sampled_from(sorted(BLOCKS)), st.integers(0, 6)
)


@DATA
@given(st.lists(small, min_size=1, max_size=20), st.integers(5, 90), st.integers(0, 3))
def test_many_small_records_are_found_by_their_look(
    pattern: list[tuple[str, str, int]], times: int, pages: int
) -> None:
    """A pattern of them again and again, and now and then a page."""
    ram = Ram()
    for number in range(times):
        for kind, block, page in pattern:
            ram.page(kind, block, page, number)
        if pages and number % (7 * pages) == 6:
            ram.page("normal", "b", number % 40, number)
    data = head() + call(ram.take(), last=True) + b"\0"
    assert calls_of(data) == [ram.records]


@DATA
@given(streams(6))
def test_rounds_sendings_and_bytes_are_those_of_the_oracle(
    made: Made,
) -> None:
    data, calls, _ = made
    report = summary(data)
    rounds = rounds_of(calls)
    assert [it.calls for it in report.rounds] == [len(it) for it in rounds]
    assert report.rounds_total == len(rounds)
    assert [it.pages.total for it in report.rounds] == [
        sum(len(calls[number]) for number in one) for one in rounds
    ]
    assert {it.times: it.pages for it in report.sendings} == sendings_of(
        calls, sum(BLOCKS.values())
    )
    records = [it for one in calls for it in one]
    sizes = report.bytes
    assert sizes.session + sum(
        (sizes.zero, sizes.normal, sizes.xbzrle, sizes.compressed, sizes.encrypted)
    ) == sum(it.size for it in records)
    assert report.passes == passes_of(calls)
    assert report.pages.encrypted == sum(it.kind == "encrypted" for it in records)
    assert report.bytes_total == len(data)
    assert sum(len(it.blocks) > 0 for it in report.rounds) <= len(rounds)


pages = st.lists(st.integers(0, BLOCKS["b"] - 1), max_size=30, unique=True).map(
    lambda it: np.array(it, np.int64)
)


@DATA
@given(st.lists(st.tuples(st.sampled_from("zne"), pages), max_size=6), st.data())
def test_what_the_writer_writes_is_read(
    sent: list[tuple[str, np.ndarray[tuple[int], np.dtype[np.int64]]]], data: st.DataObject
) -> None:
    file = io.BytesIO()
    writer = StreamWriter(file, list(BLOCKS.items()), SessionData(5, PDH, SESSION))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    ram, expected = np.zeros((BLOCKS["b"], PAGE), np.uint8), []
    encrypted = np.zeros(BLOCKS["b"], np.bool_)
    for road, which in sent:
        writer.begin_round()
        contents = rng.integers(0, 256, (which.size, PAGE), np.uint8)
        if road == "z":
            written = writer.zero_pages("b", which)
        elif road == "n":
            written = writer.normal_pages("b", which, contents)
        else:
            hdr = rng.integers(0, 256, (which.size, 52), np.uint8)
            written = writer.encrypted_pages("b", which, hdr, contents)
        ram[which] = contents if road == "n" else 0
        encrypted[which] = road == "e"
        kind = {"z": "zero", "n": "normal", "e": "encrypted"}[road]
        expected.append((kind, which.tolist(), written))
    writer.begin_round(stopped=True)
    private = PrivateRange(7, BLOCKS["b"], from_pages(np.flatnonzero(encrypted), BLOCKS["b"]))
    writer.private_map([private])
    writer.end()
    stream = file.getvalue()
    assert writer.written_bytes == len(stream)
    calls = calls_of(stream)
    assert [
        ([it.kind for it in one], [it.page for it in one], sum(it.size for it in one))
        for one in calls[:-1]
    ] == [([kind] * len(which), which, written) for kind, which, written in expected]
    with opened(stream) as raw:
        rebuilt = rebuild(StreamReader(raw, "test"))
    assert np.array_equal(rebuilt.pages["b"], ram)
    assert np.array_equal(rebuilt.encrypted["b"], encrypted)
    with opened(stream) as raw:
        events = list(StreamReader(raw, "test"))
    (state,) = (it for it in events if isinstance(it, PrivateBitmaps))
    (got,) = state.ranges
    assert (got.base_gfn, got.npages) == (7, BLOCKS["b"])
    assert np.array_equal(got.words, private.words)
    sessions = [it for it in events if isinstance(it, Session)]
    assert len(sessions) == any(road == "e" and which.size for road, which in sent)
    assert summary(stream).why_unread == ""


def test_the_writer_refuses_what_no_stream_can_hold() -> None:
    writer = StreamWriter(io.BytesIO(), [("b", 4)])
    page, one = np.array([0]), np.zeros((1, PAGE), np.uint8)
    with pytest.raises(InputError, match="begin one first"):
        writer.zero_pages("b", page)
    writer.begin_round()
    with pytest.raises(InputError, match=r"pages 4 to 4 of 4"):
        writer.zero_pages("b", page + 4)
    with pytest.raises(InputError, match="not one of b"):
        writer.zero_pages("a", page)
    with pytest.raises(InputError, match="needs the session"):
        writer.encrypted_pages("b", page, np.zeros((1, 52), np.uint8), one)
    with pytest.raises(InputError, match=r"expected the shape \(1, 4096\)"):
        writer.normal_pages("b", page, one[:, 1:])
    with pytest.raises(InputError, match="guest stopped"):
        writer.private_map([])
    with pytest.raises(InputError, match="stopped guest"):
        writer.end()
    writer.begin_round(stopped=True)
    with pytest.raises(InputError, match="no round after"):
        writer.begin_round()
    for blocks in ([], [("b", 1), ("b", 1)], [("", 1)], [("b" * 256, 1)], [("b", 0)]):
        with pytest.raises(InputError):
            StreamWriter(io.BytesIO(), blocks)


@pytest.mark.parametrize("huge", [{"pc.ram", "vga.vram"}, {"b"}, set(BLOCKS)])
def test_where_postcopy_may_follow_huge_pages_are_in_the_table(huge: set[str]) -> None:
    """Of 2 MiB, as in streams of QEMU 7.2 and 10.0 with memory-backend-memfd,hugetlb=on."""
    data, advise = head(), struct.pack(">BHHQQ", 8, 3, 16, 1 << 21 | PAGE, PAGE)
    for name in huge:
        row = counted(name) + struct.pack(">Q", BLOCKS[name] * PAGE)
        data = data.replace(row, row + struct.pack(">Q", 1 << 21))
    start = data.index(b"\1\0\0\0\2\3ram")
    data += call(b"", last=True) + b"\0"
    report = summary(data[:start] + advise + data[start:])
    assert {it.name: it.npages for it in report.blocks} == BLOCKS
    with pytest.raises(StreamError):
        summary(data)
