from __future__ import annotations

import gzip
import io
import lzma
import zipfile

import pytest

from kvmenc.filekind import begins_as, may_be_json
from kvmenc.stream import StreamWriter


def stream() -> bytes:
    file = io.BytesIO()
    StreamWriter(file, [("ram", 1)])
    return file.getvalue()


def archive() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as made:
        made.writestr("a", "b")
    return file.getvalue()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "it is empty"),
        (stream(), "it is a migration stream"),
        (archive(), "it is a ZIP"),
        (gzip.compress(b"x", mtime=0), "it is packed by gzip"),
        (lzma.compress(b"x"), "it is packed by xz"),
        (b"\x28\xb5\x2f\xfd\x24\0\x01\0", "it is packed by zstd"),
        (b"QFI\xfb\0\0\0\3", "it is a qcow2 image"),
        (b"\x11\x22\x33\x44\0\0\0\1", "it is one of multifd's connections"),
        (b' \n {"a": 1}', "it is JSON"),
        (b"\x7fELF", "it is nothing that kvmenc writes"),
    ],
    ids=lambda given: given if isinstance(given, str) else "",
)
def test_a_file_is_known_by_how_it_begins(data: bytes, words: str) -> None:
    assert begins_as(data[:8]).startswith(words)
    assert may_be_json(data[:8]) == (words == "it is JSON")
