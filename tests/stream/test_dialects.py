"""Encrypted records of each dialect, by hand; and numbers that mean something else elsewhere."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from kvmenc.errors import StreamError
from tests.stream.raw import BLOCKS, HDR, PAGE, PDH, SESSION, Ram, call, counted, head
from tests.stream.reading import calls_of, summary

DATA = Path(__file__).parents[1] / "data" / "stream"


def fixture(name: str) -> bytes:
    """Hex digits between comments; ``XX*N`` is a byte repeated."""
    found = bytearray()
    for line in (DATA / f"{name}.hex").read_text().splitlines():
        for word in line.partition("#")[0].split():
            byte, _, times = word.partition("*")
            found += bytes.fromhex(byte) * int(times or 1)
    return bytes(found)


def test_v2_has_no_kind_and_a_bitmap_for_each_memslot() -> None:
    report = summary(fixture("v2"))
    assert report.dialects == ["v2"]
    assert report.pages.encrypted == 2
    assert report.session is not None
    assert (report.session.policy, report.session.pdh_bytes, report.bytes.session) == (1, 3, 17)
    state = report.private_state
    assert state is not None
    assert (state.ranges, state.pages, state.private_pages) == (2, 16, 13)


def test_v3_has_bitmaps_of_gfns() -> None:
    report = summary(fixture("v3"))
    state = report.private_state
    assert state is not None
    assert (report.dialects, report.pages.encrypted) == (["v3"], 2)
    assert (state.form, state.ranges, state.pages, state.private_pages) == ("bitmaps", 1, 16, 4)


def test_v4_has_a_list_of_shared_gfns() -> None:
    report = summary(fixture("v4"))
    state = report.private_state
    assert state is not None
    assert (report.dialects, report.pages.encrypted) == (["v4"], 1)
    assert (state.form, state.ranges, state.private_pages, state.shared_pages) == (
        "list",
        2,
        None,
        9,
    )


def test_csv_has_batches_flushes_and_registers() -> None:
    report = summary(fixture("csv"))
    assert report.dialects == ["csv"]
    assert (report.pages.encrypted, report.encrypted_vcpus, report.flushes) == (4, 1, 1)
    assert report.bytes.cpu_states == 8 + 4 + 4 + 4 + 4 + 4 + 2 + 4 + 3 + 4


def test_mainline_flushes_multifd_with_the_number_of_others_pages() -> None:
    ram = Ram()
    ram.page("zero", "b", 1)
    ram.data += struct.pack(">Q", 0x200)
    ram.page("zero", "b", 2)
    report = summary(head() + call(ram.take(), last=True) + b"\0")
    assert (report.flushes, report.dialects) == (1, ["csv", "qemu"])


def test_without_private_state_v3_and_v4_are_the_same() -> None:
    ram = Ram("v3")
    ram.page("encrypted", "b", 0)
    report = summary(head() + call(ram.take(), last=True) + b"\0")
    assert report.dialects == ["v3", "v4"]


def ambiguous() -> bytes:
    """A first page that is of v2 and of v3 alike, to its last byte.

    v2 reads policy 1 and a certificate of 5 bytes; v3 reads kind 1, policy 5 and a certificate of
    the last of these bytes. From the session data on they read the same.
    """
    v3 = struct.pack(">III", 1, 5, 1) + b"p" + struct.pack(">I", 9) + b"s" * 9
    packet = struct.pack(">I", 1) + b"h" + struct.pack(">I", PAGE) + b"\0" * PAGE
    return struct.pack(">Q", 0x200) + counted("b") + v3 + packet


def test_what_two_dialects_explain_must_be_named() -> None:
    data = head() + call(ambiguous(), last=True) + b"\0"
    with pytest.raises(StreamError, match=r"can be of v2 or v3 or v4: name it by --dialect"):
        summary(data)
    assert summary(data, "v2").session != summary(data, "v3").session


@pytest.mark.parametrize(
    ("dialect", "told"),
    [("qemu", "after 0x200"), ("csv", "after 0x200"), ("v2", "expected")],
)
def test_a_dialect_that_is_named_wrongly_is_refused(dialect: str, told: str) -> None:
    with pytest.raises(StreamError, match=told):
        summary(fixture("v3"), dialect)


def csv_of(kinds: list[int], after: bytes = b"") -> bytes:
    ram = Ram("csv")
    for page, kind in enumerate(kinds):
        ram.encrypted("b", page, kind)
    return head() + call(ram.take() + after, last=True) + b"\0"


def test_batches_are_whole() -> None:
    long = [4] * 30 + [5]
    assert len(calls_of(csv_of(long))[0]) == 31
    assert len(calls_of(csv_of([5, 1, 4, 5, 1]))[0]) == 5
    for broken in ([4, 1], [4, 4], [*long, 4, 1, 5]):
        with pytest.raises(StreamError, match="batch of encrypted pages"):
            calls_of(csv_of(broken))
    zero = struct.pack(">Q", 0x22) + b"\0"
    with pytest.raises(StreamError, match="another record within a batch"):
        calls_of(csv_of([4, 4], zero))


def test_a_packet_of_another_size_among_others_is_read() -> None:
    ram = Ram("v3")
    for page in range(40):
        ram.encrypted("b", page, hdr=HDR + b"!" if page in {20, 21} else HDR)
    assert calls_of(head() + call(ram.take(), last=True) + b"\0") == [ram.records]


def test_bits_past_a_bitmaps_last_page_are_not_believed() -> None:
    ram = Ram("v3")
    ram.page("encrypted", "b", 0)
    bitmap = struct.pack(">QIIQQQ", 0x220, 2, 1, 0, 10, 8) + b"\xff" * 8 + struct.pack(">I", 2)
    report = summary(head() + call(ram.take() + bitmap, last=True) + b"\0")
    assert report.private_state is not None
    assert report.private_state.private_pages == 10


def test_the_session_is_no_bytes_of_the_page() -> None:
    ram = Ram("v3")
    ram.page("encrypted", "b", 0)
    report = summary(head() + call(ram.take(), last=True) + b"\0")
    assert report.bytes.session == 12 + len(PDH) + len(SESSION)
    assert report.bytes.encrypted == 8 + 2 + 4 + 4 + len(HDR) + 4 + PAGE
    assert report.rounds[0].bytes.encrypted == report.bytes.encrypted
    assert sum(BLOCKS.values()) * PAGE == report.ram_bytes
