from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmenc.capture import (
    MAX_FILE_BYTES,
    BlockFacts,
    Capture,
    CurvePoint,
    SyncSample,
    load_capture,
    save_capture,
)
from kvmenc.errors import CaptureError

if TYPE_CHECKING:
    from pathlib import Path


def sound_capture() -> Capture:
    return Capture(
        source="scratch guest on fake",
        private_source="bitmap v7",
        blocks=(
            BlockFacts("pc.ram", 1000, 600, 100, 0),
            BlockFacts("pc.bios", 64, 64, None, 64),
        ),
        curve=(CurvePoint(50, 10, 5), CurvePoint(100, 15, 8)),
        samples=(SyncSample(50, 50, 10, 5, 0), SyncSample(100, 50, 9, 5, 2)),
    )


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


def test_a_saved_capture_is_loaded_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "a.capture"
    save_capture(sound_capture(), path)
    assert load_capture(path) == sound_capture()
    assert load_capture(path).npages == 1064
    assert load_capture(path).private_pages == 664


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


def test_a_file_without_end_is_refused_after_a_bounded_read() -> None:
    with pytest.raises(CaptureError, match=f"at most {MAX_FILE_BYTES} bytes"):
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


def test_an_unsound_capture_never_reaches_the_disk(tmp_path: Path) -> None:
    unsound = msgspec.structs.replace(sound_capture(), curve=(CurvePoint(float("nan"), 1, 1),))
    with pytest.raises(CaptureError, match="not sound"):
        save_capture(unsound, tmp_path / "a.capture")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.capture"
    save_capture(sound_capture(), path)
    before = path.read_bytes()

    def interrupted(_fd: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_capture(msgspec.structs.replace(sound_capture(), source="other"), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_directory_that_is_not_there_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match=r"a\.capture: cannot be written: No such file"):
        save_capture(sound_capture(), tmp_path / "absent" / "a.capture")
