"""A capture's facts, as the bare JSON that a person may write too."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmenc.capture import Capture, CurvePoint, load_capture, open_capture, save_capture
from kvmenc.capture.facts import MAX_FACTS_BYTES, decode, encode
from kvmenc.errors import CaptureError
from tests.capture.captures import captures, sound_capture

if TYPE_CHECKING:
    from pathlib import Path

    from tests.capture.captures import Bitmaps


def sound_object() -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins(sound_capture())
    return plain


def refusal(path: Path, content: bytes) -> str:
    """The error that ``content`` gets, which must be one printable line naming the file."""
    path.write_bytes(content)
    with pytest.raises(CaptureError) as caught:
        load_capture(path)
    assert str(caught.value).startswith(str(path))
    assert str(caught.value).isprintable()
    return str(caught.value).removeprefix(f"{path}: ")


def test_facts_alone_are_a_capture_without_bitmaps(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(msgspec.json.encode(sound_capture()))
    assert load_capture(path) == sound_capture()
    assert load_capture(path).npages == 1064
    assert load_capture(path).private_pages == 664
    with open_capture(path) as file:
        assert file.kinds("pc.ram") == ()
        with pytest.raises(CaptureError, match=r"it holds no dirty bitmap of 'pc\.ram'"):
            file.bitmap("dirty", "pc.ram")


@given(captures())
def test_encoded_facts_decode_to_the_same(drawn: tuple[Capture, Bitmaps]) -> None:
    assert decode(encode(drawn[0])) == drawn[0]


def test_a_point_of_the_curve_is_one_line() -> None:
    lines = encode(sound_capture()).decode().splitlines()
    assert '  { "ms": 50, "private_pages": 10, "shared_pages": 5, "error_ms": 0.5 },' in lines


@pytest.mark.parametrize("text", ['{"', "}", '{ "a": [', "]", "\\n  x", '"'])
def test_text_that_looks_like_json_stays_as_it_is(text: str) -> None:
    capture = msgspec.structs.replace(sound_capture(), source=text, notes=(text, "[", text))
    assert decode(encode(capture)) == capture


@pytest.mark.parametrize(
    ("where", "value", "complaint"),
    [
        (("schema",), "kvmenc.capture/2", "expected 'kvmenc.capture/1', got 'kvmenc.capture/2'"),
        (("source",), "\x1b[31mred", "expected printable text - at `$.source`"),
        (("source",), "", "length >= 1 - at `$.source`"),
        (("private_source",), "x" * 256, "length <= 255 - at `$.private_source`"),
        (("holds",), "everything", "at `$.holds`"),
        (("page_size",), 5000, "expected a power of two - at `$.page_size`"),
        (("page_size",), 0, "`int` >= 4096 - at `$.page_size`"),
        (("blocks",), [], "length >= 1 - at `$.blocks`"),
        (("blocks", 0, "npages"), -1, "`int` >= 1 - at `$.blocks[0].npages`"),
        (("blocks", 0, "npages"), 10**30, "at `$.blocks[0].npages`"),
        (("blocks", 0, "npages"), 1e3, "Expected `int`, got `float` - at `$.blocks[0].npages`"),
        (("blocks", 0, "private_pages"), 901, "private and zero pages within 1000"),
        (("blocks", 1, "unlogged_pages"), 65, "at most 64 - at `$.blocks[1].unlogged_pages`"),
        (("blocks", 1, "name"), "pc.ram", "a name of its own - at `$.blocks[1].name`"),
        (("blocks", 1, "name"), "a\nb", "printable text - at `$.blocks[1].name`"),
        (("curve",), [], "length >= 1 - at `$.curve`"),
        (("private_reason",), "\x7f", "printable text - at `$.private_reason`"),
        (("notes",), ["ok", "a\rb"], "printable text - at `$.notes[1]`"),
        (("notes",), ["x"] * 101, "length <= 100 - at `$.notes`"),
        (("blocks", 0, "zero_low_pages"), None, "both or neither"),
        (("blocks", 0, "zero_low_pages"), 101, "zero_low_pages <= zero_pages <= zero_high_pages"),
        (("blocks", 0, "zero_high_pages"), 99, "zero_low_pages <= zero_pages <= zero_high_pages"),
        (("blocks", 0, "zero_high_pages"), 401, "at most 400 - at `$.blocks[0].zero_high_pages`"),
        (("blocks", 0, "zero_pages"), None, "never without zero_pages"),
        (("slots", 0, "block"), "pc.rom", "the name of a block - at `$.slots[0].block`"),
        (("slots", 1, "block_page"), 2, "pages within the 64 of its block - at `$.slots[1]`"),
        (("slots", 0, "slot_id"), 65536, "`int` <= 65535 - at `$.slots[0].slot_id`"),
        (("windows", 0, "points"), [], "length >= 1 - at `$.windows[0].points`"),
        (("windows", 0, "ended_by"), "boredom", "at `$.windows[0].ended_by`"),
        (("windows", 0, "points", 1, "ms"), 50, "more than 50 - at `$.windows[0].points[1].ms`"),
        (("windows", 0, "points", 1, "private_pages"), [15], "2 numbers, one for each block"),
        (("windows", 0, "points", 1, "shared_pages"), [8, 0, 0], "2 numbers, one for each block"),
        (("windows", 0, "points", 1, "private_pages"), [6, 0], "no fewer pages of block 0 than"),
        (("windows", 0, "points", 1, "shared_pages"), [8, 65], "at most 64 pages of block 1"),
        (("windows", 0, "points", 1, "error_ms"), -1, "at `$.windows[0].points[1].error_ms`"),
        (("windows", 0, "points", 1, "private_pages"), [20, 0], "what its windows make"),
        (("windows", 0, "points", 1, "ms"), 101, "what its windows make"),
        (("device", "points", 0, "pages"), [7], "2 numbers, one for each block"),
        (("device", "points", 0, "pages"), [7, 65], "no more pages than each block has"),
        (("device", "points", 0, "low_pages"), 8, "low_pages <= sum of pages <= high_pages"),
        (("device", "points", 0, "high_pages"), 6, "low_pages <= sum of pages <= high_pages"),
        (("device", "points", 0, "high_pages"), 1065, "high_pages <= 1064"),
        (("device", "points", 0, "ms"), 0, "more than 0 - at `$.device.points[0].ms`"),
        (("device", "confidence"), 1, "`float` < 1.0 - at `$.device.confidence`"),
        (("device", "sampled_pages"), 1001, "sampled_pages <= population_pages <= 1064"),
        (("device", "population_pages"), 1065, "sampled_pages <= population_pages <= 1064"),
        (("costs", "stop_median_us"), 81, "stop_median_us <= stop_p99_us <= stop_max_us"),
        (("provenance", "captured_at"), "yesterday", "at `$.provenance.captured_at`"),
        (("provenance", "captured_at"), "2026-11-23T18:00:00Z\n", "at `$.provenance.captured_at`"),
        (("provenance", "qemu"), "\x1b]0;x\x07", "printable text - at `$.provenance.qemu`"),
        (("provenance", "how"), "guessed", "at `$.provenance.how`"),
        (("curve", 0, "ms"), 0, "expected more than 0 - at `$.curve[0].ms`"),
        (("curve", 1, "ms"), 50, "expected more than 50 - at `$.curve[1].ms`"),
        (("curve", 1, "private_pages"), 9, "at least 10 - at `$.curve[1].private_pages`"),
        (("curve", 1, "shared_pages"), 4, "at least 5 - at `$.curve[1].shared_pages`"),
        (("curve", 1, "shared_pages"), 1065, "at most 1064 - at `$.curve[1].shared_pages`"),
        (("curve", 1, "ms"), None, "Expected `float`, got `null` - at `$.curve[1].ms`"),
        (("samples", 1, "t_ms"), 49, "at least 50 - at `$.samples[1].t_ms`"),
        (("samples", 1, "flipped_pages"), 1065, "at most 1064 - at `$.samples[1].flipped_pages`"),
        (("samples", 0, "dirty_private_pages"), 1060, "at most 1064 dirty pages"),
        (("extra\x1b",), 1, "unknown field `extra\\x1b`"),
    ],
)
def test_a_wrong_field_is_refused_by_name(
    tmp_path: Path, where: tuple[str | int, ...], value: object, complaint: str
) -> None:
    thing: Any = sound_object()
    whole = thing
    for step in where[:-1]:
        thing = thing[step]
    thing[where[-1]] = value
    assert complaint in refusal(tmp_path / "bad.capture", json.dumps(whole).encode())


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[",
        b"null",
        b"\xff\xfe{",
        b"{}",
        b'{"schema":"kvmenc.capture/1"}',
        b'{"deep":' + b"[" * 200_000 + b"]" * 200_000 + b',"schema":"kvmenc.capture/1"}',
        msgspec.json.encode(sound_capture())[:-1],
        msgspec.json.encode(sound_capture()) + b"{}",
        msgspec.json.encode(sound_capture()).replace(b'"ms":50,', b'"ms":1e999,'),
        msgspec.json.encode(sound_capture()).replace(b'"ms":50,', b'"ms":NaN,'),
    ],
)
def test_what_is_not_a_whole_capture_is_refused(tmp_path: Path, content: bytes) -> None:
    assert "not a usable capture" in refusal(tmp_path / "bad.capture", content)


def test_a_huge_file_is_refused_after_a_bounded_read(tmp_path: Path) -> None:
    with (tmp_path / "huge").open("wb") as file:
        file.write(b"{")
        file.truncate(2**40)
    with pytest.raises(CaptureError, match=f"at most {MAX_FACTS_BYTES} bytes"):
        load_capture(tmp_path / "huge")
    with pytest.raises(CaptureError, match="it is nothing that kvmenc writes"):
        load_capture("/dev/zero")


@pytest.mark.parametrize("name", ["absent", "."])
def test_a_file_that_cannot_be_read_is_one_clear_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(CaptureError, match=r"cannot be read: (No such file|Is a directory)"):
        load_capture(tmp_path / name)


@given(cut=st.integers(0, 10_000), junk=st.binary(max_size=8))
def test_damage_anywhere_is_refused_or_harmless(
    tmp_path_factory: pytest.TempPathFactory, cut: int, junk: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.capture"
    data = msgspec.json.encode(sound_capture())
    cut %= len(data)
    path.write_bytes(data[:cut] + junk + data[cut + len(junk) :])
    try:
        loaded = load_capture(path)
    except CaptureError:
        return
    save_capture(loaded, path)
    assert load_capture(path) == loaded


def test_windows_follow_one_another(tmp_path: Path) -> None:
    first = sound_capture().windows[0]
    capture = msgspec.structs.replace(sound_capture(), windows=(first, first))
    with pytest.raises(CaptureError, match=r"expected more than 0 - at `\$.windows\[1\].start_ms`"):
        save_capture(capture, tmp_path / "a.capture")


def test_a_curve_may_be_one_page_off_what_its_windows_make() -> None:
    """As when another machine rounds a mean the other way."""
    first, last = sound_capture().curve
    near = CurvePoint(100, 16, 7, last.error_ms)
    off = CurvePoint(100, 17, 8, last.error_ms)
    text = msgspec.json.encode(msgspec.structs.replace(sound_capture(), curve=(first, near)))
    assert decode(text).curve[1] == near
    with pytest.raises(ValueError, match=r"what its windows make.*at `\$.curve\[1\]`"):
        encode(msgspec.structs.replace(sound_capture(), curve=(first, off)))
    with pytest.raises(ValueError, match="the 2 points that its windows make"):
        encode(msgspec.structs.replace(sound_capture(), curve=(first,)))


def test_the_most_work_that_facts_can_make_is_bounded(tmp_path: Path) -> None:
    """Every window is laid over the times of the longest; so as many as there may be of both."""
    whole = sound_object()
    point = {"error_ms": 0, "private_pages": [0, 0], "shared_pages": [0, 0]}
    longest = [{"ms": i + 1, **point} for i in range(100_000)]
    short = [{"ms": 99_999.5, **point}]
    whole["windows"] = [
        {"start_ms": i, "start_error_ms": 0, "ended_by": "time", "points": short if i else longest}
        for i in range(2000)
    ]
    data = json.dumps(whole, separators=(",", ":")).encode()
    assert len(data) <= MAX_FACTS_BYTES
    start = time.monotonic()
    assert "points that its windows make" in refusal(tmp_path / "bad.capture", data)
    assert time.monotonic() - start < 30
