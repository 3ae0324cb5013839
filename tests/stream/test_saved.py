"""What libvirt puts before a stream."""

from __future__ import annotations

import struct

import pytest

from kvmenc.errors import StreamError
from tests.stream.fuzz import described
from tests.stream.reading import summary

XML = b"<domain/>\0" + b"\0" * 1000


def saved(form: int = 0, magic: bytes = b"LibvirtQemudSave", order: str = "<") -> bytes:
    """As libvirt's qemu_saveimage.c writes it: the XML's length counts what pads it, too."""
    return magic + struct.pack(f"{order}5I56x", 2, len(XML), 1, form, 0) + XML


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_saved_domain_is_read_as_its_stream(order: str) -> None:
    alone, report = summary(described()), summary(saved(order=order) + described())
    assert (report.why_unread, report.bytes.unread) == ("", 0)
    assert (report.pages, report.devices) == (alone.pages, alone.devices)
    assert report.bytes.framing == alone.bytes.framing + len(saved())


@pytest.mark.parametrize(
    ("before", "told"),
    [
        (saved(1), r"packed by gzip: unpack it first: tail -c \+1103 FILE \| gzip -dc >"),
        (saved(5), "packed by zstd"),
        (saved(6), "in form 6, not raw"),
        (saved(magic=b"LibvirtQemudPart"), "has not saved this domain to its end"),
    ],
    ids=["gzip", "zstd", "sparse", "partial"],
)
def test_what_is_no_stream_yet_is_said_with_what_to_do(before: bytes, told: str) -> None:
    with pytest.raises(StreamError, match=told):
        summary(before + described())


def test_its_offset_is_the_files() -> None:
    with pytest.raises(StreamError, match="at offset 0x44e: expected a migration stream"):
        summary(saved() + b"nothing!")
