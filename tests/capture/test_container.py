"""The container: what goes in comes out, to numpy too; what is not sound is refused."""

from __future__ import annotations

import io
import json
import random
import struct
import time
import tracemalloc
import zipfile
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmenc.capture import BlockFacts, load_capture, open_capture, save_capture
from kvmenc.capture.facts import encode
from kvmenc.errors import CaptureError
from kvmenc.memory.words import from_pages, words_for, zeros
from tests.capture.big import big_capture
from tests.capture.captures import captures, sound_bitmaps, sound_capture

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from kvmenc.capture import BitmapKind, Capture
    from kvmenc.memory.words import Words
    from tests.capture.captures import Bitmaps

    Members = dict[str, bytes]


def saved(path: Path) -> bytes:
    save_capture(sound_capture(), path, sound_bitmaps())
    return path.read_bytes()


def refusal(path: Path, content: bytes) -> str:
    """The one printable line that ``content`` gets, when opened or when its bitmaps are read."""
    path.write_bytes(content)
    with pytest.raises(CaptureError) as caught:
        read_all(path)
    message = str(caught.value)
    assert message.isprintable()
    return message.removeprefix(f"{path}: not a usable capture: ")


def read_all(path: Path) -> tuple[Capture, Bitmaps]:
    with open_capture(path) as file:
        blocks = file.capture.blocks
        kept = [(kind, it.name) for it in blocks for kind in file.kinds(it.name)]
        return file.capture, {(kind, name): file.bitmap(kind, name) for kind, name in kept}


@given(captures())
def test_what_was_saved_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, drawn: tuple[Capture, Bitmaps]
) -> None:
    capture, bitmaps = drawn
    path = tmp_path_factory.getbasetemp() / "round.capture"
    save_capture(capture, path, bitmaps)
    assert load_capture(path) == capture
    read_capture, read_bitmaps = read_all(path)
    assert read_capture == capture
    assert read_bitmaps.keys() == bitmaps.keys()
    for key, words in bitmaps.items():
        assert read_bitmaps[key].dtype == words.dtype
        assert np.array_equal(read_bitmaps[key], words)


def test_numpy_loads_a_bitmap_and_unzip_shows_the_facts(tmp_path: Path) -> None:
    path = tmp_path / "a.capture"
    saved(path)
    with np.load(path) as arrays:
        assert np.array_equal(arrays["dirty/0"], sound_bitmaps()["dirty", "pc.ram"])
        assert np.array_equal(arrays["private/1"], sound_bitmaps()["private", "pc.bios"])
    with zipfile.ZipFile(path) as archive:
        facts = archive.read("capture.json")
        assert json.loads(facts) == json.loads(msgspec.json.encode(sound_capture()))
        assert archive.testzip() is None


@pytest.mark.parametrize("npages", [1, 64, 65, 6400, 10**6, 2**28, 2**40])
def test_the_header_is_the_one_that_numpy_writes(tmp_path: Path, npages: int) -> None:
    from kvmenc.capture.container import _npy_header  # noqa: PLC0415 - private, shown to be numpy's

    by_numpy = io.BytesIO()
    shape = (words_for(npages),)
    description = {"descr": "<u8", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(by_numpy, description)
    assert _npy_header(*shape) == by_numpy.getvalue()


def test_the_same_capture_makes_the_same_bytes(tmp_path: Path) -> None:
    assert saved(tmp_path / "a.capture") == saved(tmp_path / "b.capture")


@pytest.mark.parametrize(
    ("kind", "name", "words", "complaint"),
    [
        ("dirty", "pc.rom", zeros(64), "no such kind or block"),
        ("clean", "pc.ram", zeros(1000), "no such kind or block"),
        ("dirty", "pc.ram", zeros(64), "expected 16 words of <u8"),
        ("dirty", "pc.ram", zeros(1000).astype("<i8"), "expected 16 words of <u8"),
        ("dirty", "pc.ram", zeros(1000).reshape(2, 8), "expected 16 words of <u8"),
        ("dirty", "pc.ram", from_pages(np.array([1000]), 1024), "no bit past page 999"),
        ("private", "pc.ram", zeros(1000), "expected 600 pages as in the facts, got 0"),
        ("zero", "pc.ram", zeros(1000), "expected 100 pages as in the facts, got 0"),
    ],
)
def test_a_wrong_bitmap_is_never_saved(
    tmp_path: Path, kind: BitmapKind, name: str, words: Words, complaint: str
) -> None:
    with pytest.raises(CaptureError, match=complaint):
        save_capture(sound_capture(), tmp_path / "a.capture", {(kind, name): words})
    assert list(tmp_path.iterdir()) == []


def test_more_bitmaps_than_can_be_read_are_never_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kvmenc.capture.file.MAX_BITMAPS_BYTES", 263)
    with pytest.raises(CaptureError, match="at most 263 bytes of bitmaps"):
        save_capture(sound_capture(), tmp_path / "a.capture", sound_bitmaps())


def test_a_strided_bitmap_is_saved_as_it_is(tmp_path: Path) -> None:
    every_other = np.repeat(sound_bitmaps()["dirty", "pc.ram"], 2)[::2]
    save_capture(sound_capture(), tmp_path / "a.capture", {("dirty", "pc.ram"): every_other})
    with open_capture(tmp_path / "a.capture") as file:
        assert np.array_equal(file.bitmap("dirty", "pc.ram"), every_other)


def members() -> Members:
    """What a sound file holds."""
    out = io.BytesIO()
    np.save(out, sound_bitmaps()["private", "pc.bios"])
    return {"capture.json": encode(sound_capture()), "private/1.npy": out.getvalue()}


def packed(content: Members, compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as archive:
        for name, data in content.items():
            archive.writestr(zipfile.ZipInfo(name), data, compression)
    return out.getvalue()


def test_what_these_tests_pack_is_sound_until_they_spoil_it(tmp_path: Path) -> None:
    path = tmp_path / "a.capture"
    path.write_bytes(packed(members()))
    with open_capture(path) as file:
        assert file.kinds("pc.bios") == ("private",)
        assert int(file.bitmap("private", "pc.bios")[0]) == 2**64 - 1


BIOS = "private/1.npy"


def without_facts(it: Members) -> None:
    del it["capture.json"]


def with_huge_facts(it: Members) -> None:
    it["capture.json"] += b" " * 17 * 2**20


def with_bad_facts(it: Members) -> None:
    it["capture.json"] = it["capture.json"].replace(b"vcpu", b"vcpv")


def with_a_stranger(it: Members) -> None:
    it["private/2.npy"] = it[BIOS]


def with_a_strange_name(it: Members) -> None:
    it["../\x1b[31m"] = b""


def with_an_index_in_other_words(it: Members) -> None:
    it["private/01.npy"] = it.pop(BIOS)


def with_a_longer_bitmap(it: Members) -> None:
    it[BIOS] += b"\0" * 8


def with_a_shorter_bitmap(it: Members) -> None:
    it[BIOS] = it[BIOS][:-1]


def with_an_array_of_objects(it: Members) -> None:
    it[BIOS] = it[BIOS].replace(b"'<u8'", b"'|O' ")


def with_another_shape(it: Members) -> None:
    it[BIOS] = it[BIOS].replace(b"(1,)", b"(9,)")


def with_another_count(it: Members) -> None:
    it[BIOS] = it[BIOS][:-8] + b"\0" * 8


def with_a_bit_past_the_end(it: Members) -> None:
    words = zeros(1000)
    words[-1] = 1 << 40
    out = io.BytesIO()
    np.save(out, words)
    it["dirty/0.npy"] = out.getvalue()


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (without_facts, "expected a member 'capture.json'"),
        (with_huge_facts, "expected at most 16777216 bytes of facts"),
        (with_bad_facts, "at `$.holds`"),
        (with_a_stranger, "member 'private/2.npy': expected none of that name"),
        (with_a_strange_name, "member '../\\x1b[31m': expected none of that name"),
        (with_an_index_in_other_words, "member 'private/01.npy': expected none of that name"),
        (with_a_longer_bitmap, "member private/1.npy: expected 136 bytes uncompressed"),
        (with_a_shorter_bitmap, "member private/1.npy: expected 136 bytes uncompressed"),
        (with_an_array_of_objects, "member private/1.npy: expected another .npy header"),
        (with_another_shape, "member private/1.npy: expected another .npy header"),
        (with_another_count, "expected 64 pages as in the facts, got 0"),
        (with_a_bit_past_the_end, "expected no bit past page 999"),
    ],
)
def test_a_container_with_other_members_is_refused(
    tmp_path: Path, spoil: Callable[[Members], None], complaint: str
) -> None:
    content = members()
    spoil(content)
    assert complaint in refusal(tmp_path / "bad.capture", packed(content))


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_only_deflate_is_read(tmp_path: Path, method: int) -> None:
    """So only what is bounded while it is inflated ever runs."""
    assert "expected plain deflate" in refusal(tmp_path / "bad.capture", packed(members(), method))


def test_a_name_given_twice_is_refused(tmp_path: Path) -> None:
    out = io.BytesIO(packed(members()))
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(out, "a") as archive:
        archive.writestr(zipfile.ZipInfo(BIOS), members()[BIOS], zipfile.ZIP_DEFLATED)
    assert "two members have one name" in refusal(tmp_path / "bad.capture", out.getvalue())


def patched(data: bytes, signature: bytes, offset: int, value: bytes, which: int = -1) -> bytes:
    """Overwrite a field of a record; of its occurrences the last, unless told."""
    at = [i for i in range(len(data)) if data.startswith(signature, i)][which] + offset
    return data[:at] + value + data[at + len(value) :]


ENTRY, END = b"PK\x01\x02", b"PK\x05\x06"


@pytest.mark.parametrize("flag", [0x01, 0x08, 0x20, 0x40, 0x800])
def test_encryption_and_other_flags_are_refused(tmp_path: Path, flag: int) -> None:
    data = patched(packed(members()), ENTRY, 8, struct.pack("<H", flag))
    assert "expected plain deflate" in refusal(tmp_path / "bad.capture", data)


def test_a_member_that_holds_more_than_it_says_is_not_inflated_further(tmp_path: Path) -> None:
    """The facts claim a hundred bytes and would inflate to a gigabyte."""
    bomb = packed({"capture.json": b" " * 2**24})
    data = patched(bomb, ENTRY, 24, struct.pack("<L", 100))
    tracemalloc.start()
    try:
        assert "member capture.json is damaged: Bad CRC-32" in refusal(tmp_path / "b", data)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_a_member_that_holds_less_than_it_says_is_refused(tmp_path: Path) -> None:
    short = members()
    short[BIOS] = short[BIOS][:-1]
    data = patched(packed(short), ENTRY, 24, struct.pack("<L", 136))
    assert BIOS in refusal(tmp_path / "bad.capture", data)


def test_bitmaps_that_would_fill_the_memory_are_refused_unread(tmp_path: Path) -> None:
    """A block of 128 TiB, whose bitmap of zeros is a file of a few kilobytes by its own word."""
    block = BlockFacts("huge", 2**34, 0, None, 0)
    capture = msgspec.structs.replace(
        sound_capture(), blocks=(block, *sound_capture().blocks), windows=(), device=None
    )
    content = {"capture.json": encode(capture), "dirty/0.npy": b""}
    size = 128 + words_for(2**34) * 8
    data = patched(packed(content), ENTRY, 24, struct.pack("<L", size))
    assert "at most 2097152000 bytes of bitmaps" in refusal(tmp_path / "bad.capture", data)


@pytest.mark.parametrize(
    ("offset", "value"),
    [
        (4, b"\1\0"),  # disks
        (8, b"\xff\xff"),  # entries here
        (10, b"\xff\xff"),  # entries in all
        (12, b"\xff\xff\xff\x7f"),  # size of the directory
        (16, b"\0\0\0\0"),  # its place
        (20, b"\1\0"),  # length of a comment
    ],
)
def test_a_false_end_record_is_refused_before_it_is_believed(
    tmp_path: Path, offset: int, value: bytes
) -> None:
    message = refusal(tmp_path / "bad.capture", patched(packed(members()), END, offset, value))
    assert message.startswith(("expected an end record", "expected a directory of at most"))


def test_a_directory_larger_than_any_capture_has_is_refused(tmp_path: Path) -> None:
    """Its size is true, so that only the bound stands between it and the memory."""
    many = packed({f"{i:0200}": b"" for i in range(4000)})
    assert "expected a directory of at most" in refusal(tmp_path / "bad.capture", many)


@pytest.mark.parametrize(
    "content",
    [
        b"PK\x03\x04",
        b"PK\x03\x04" + b"\0" * 100,
        packed(members()) + b"\0",
        b"PK\x03\x04" + packed(members()),
        packed(members())[:-1],
        packed(members())[:200],
    ],
)
def test_a_zip_with_something_more_or_less_is_refused(tmp_path: Path, content: bytes) -> None:
    assert refusal(tmp_path / "bad.capture", content).startswith("expected ")


def test_a_64_bit_directory_is_refused_before_it_is_believed(tmp_path: Path) -> None:
    """Zipfile would take the directory's size from the record to which a locator points."""
    data, end = packed(members())[:-22], packed(members())[-22:]
    claims = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, 2, 2, 2**40, 0)
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, len(data), 1)
    content = data + claims + locator + end
    assert "without 64-bit extension" in refusal(tmp_path / "bad.capture", content)


@given(seed=st.integers(0, 2**32), changes=st.integers(1, 4))
def test_a_real_file_with_changed_bytes_is_refused_or_whole(
    tmp_path_factory: pytest.TempPathFactory, seed: int, changes: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "mutated.capture"
    rng, data = random.Random(seed), bytearray(saved(path))
    for _ in range(changes):
        data[rng.randrange(len(data))] = rng.randrange(256)
    path.write_bytes(data)
    try:
        capture, bitmaps = read_all(path)
    except CaptureError as error:
        message = str(error)
    else:
        message = str(path)
        assert capture == sound_capture()
        for key, words in bitmaps.items():
            assert np.array_equal(words, sound_bitmaps()[key])
    assert message.startswith(str(path))
    assert message.isprintable()


def test_damage_to_one_bitmap_is_found_when_that_one_is_read(tmp_path: Path) -> None:
    """Which shows, too, that opening a file reads no bitmap."""
    data = saved(tmp_path / "a.capture")
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        info = archive.getinfo("dirty/0.npy")
    at = info.header_offset + 30 + len(info.filename) + info.compress_size - 3
    (tmp_path / "a.capture").write_bytes(data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :])
    with open_capture(tmp_path / "a.capture") as file:
        file.bitmap("private", "pc.ram")
        with pytest.raises(CaptureError, match=r"member dirty/0\.npy"):
            file.bitmap("dirty", "pc.ram")


def test_a_capture_of_1_tib_opens_within_100_ms(tmp_path: Path) -> None:
    """As large as a real one; the best of five, as a busy neighbour only ever adds."""
    path = tmp_path / "big.capture"
    capture, bitmaps = big_capture(npoints=2500)
    save_capture(capture, path, bitmaps)
    took_ms = []
    for _ in range(5):
        start = time.perf_counter()
        with open_capture(path) as file:
            assert file.capture.npages > 2**28
        took_ms.append((time.perf_counter() - start) * 1e3)
    assert min(took_ms) < 100
