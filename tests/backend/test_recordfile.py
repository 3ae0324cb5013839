"""The file is whole or not there; what is not sound is refused in one line, and cheaply."""

from __future__ import annotations

import gzip
import random
import tracemalloc
import zlib
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakekvm import host_named
from kvmenc.backend import recordfile
from kvmenc.backend.fake import FakeBackend
from kvmenc.backend.kinds import machine_root, recorded
from kvmenc.backend.recordfile import Writer, load_recording
from kvmenc.backend.recordmodel import Closed, Header, Opened
from kvmenc.backend.replay import ReplayBackend
from kvmenc.errors import KvmencError, RecordingError
from kvmenc.probe.result import probe
from tests.backend.recordings import first_log, record, rewritten
from tests.backend.test_secrets import sent

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from kvmenc.backend import Backend

HEADER = (
    b'{"schema":"kvmenc.recording/1","kvmenc_version":"1","backend":"b","fake":true,'
    b'"contents":false}\n'
)
CLOSE, END = b'{"call":"close","fd":0}\n', b'{"call":"end","calls":1}\n'


def probed(backend: Backend) -> object:
    with machine_root(backend) as root:
        return probe(backend, root=root)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Files of a probe, of a guest that ran, and of one that was sent."""
    path = tmp_path_factory.mktemp("good") / "a.recording"
    found = {}
    for use in (probed, first_log, sent):
        record(path, FakeBackend(host_named("sev")), use)
        found[use.__name__] = path.read_bytes()
    return found


def refusal(path: Path, content: bytes) -> str:
    """The one printable line that ``content`` gets."""
    path.write_bytes(content)
    with pytest.raises(RecordingError) as caught:
        load_recording(path)
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) <= 500
    return message.removeprefix(f"{path}: not a usable recording: ")


def test_the_shortest_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.recording"
    path.write_bytes(gzip.compress(HEADER + CLOSE + END))
    recording = load_recording(path)
    assert recording.calls == (Closed(fd=0),)
    assert recording.header.backend == "b"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (b"", "line 1: expected another call"),
        (HEADER, "line 2: expected another call, or the end of the recording"),
        (HEADER + CLOSE, "line 3: expected another call, or the end of the recording"),
        (HEADER + END, "line 2: expected 0 calls - at `$.calls`"),
        (HEADER + CLOSE + END + CLOSE, "line 3: expected nothing after the end"),
        (HEADER + CLOSE + END[:-1], "line 3: expected nothing after the last line"),
        (HEADER.replace(b"/1", b"/2"), "line 1: expected 'kvmenc.recording/1', got"),
        (HEADER.replace(b'"b"', b'"\\u001b"'), r"line 1: expected printable text, got '\x1b'"),
        (HEADER.replace(b"true", b"7"), "line 1: Expected `bool`, got `int` - at `$.fake`"),
        (HEADER + b"{}\n", "line 2: Object missing required field `call`"),
        (HEADER + b'{"call":"reboot"}\n', "line 2: Invalid value 'reboot' - at `$.call`"),
        (HEADER + CLOSE.replace(b"0", b"-2"), "line 2: Expected `int` >= -1 - at `$.fd`"),
        (HEADER + CLOSE.replace(b'"fd"', b'"no":1,"fd"'), "line 2: Object contains unknown"),
        (HEADER + b"[" * 10**5 + b"\n", "line 2: "),
        (HEADER + b'{"call":"open","path":"\\u009b2J","flags":0}\n', "line 2: expected printable"),
        (
            HEADER + b'{"call":"mmap","fd":0,"length":9999999999,"offset":0}\n',
            "line 2: Expected `int` <= 4194304 - at `$.length`",
        ),
        (HEADER + b'{"call":"seen","what":"clock","value":1e999}\n', "line 2: "),
    ],
)
def test_a_text_that_is_none_is_refused_by_line(
    tmp_path: Path, text: bytes, complaint: str
) -> None:
    assert refusal(tmp_path / "a.recording", gzip.compress(text)).startswith(complaint)


@pytest.mark.parametrize(
    ("piece", "complaint"),
    [
        ({"nbytes": 4, "data": "AAAA"}, "arg: expected 4 bytes, got 3"),
        ({"nbytes": 4097, "digests": "A" * 20 + "AA=="}, "arg: expected 2 digests"),
        ({"nbytes": 3, "data": "AAAA", "digests": "A" * 20 + "AA=="}, "arg: expected bytes or"),
        ({"nbytes": -1}, "Expected `int` >= 0"),
    ],
)
def test_memory_that_contradicts_itself_is_refused(
    tmp_path: Path, piece: dict[str, object], complaint: str
) -> None:
    call = {"call": "ioctl", "fd": 0, "request": 1, "name": "n", "before": {"arg": piece}}
    text = HEADER + msgspec.json.encode(call) + b"\n" + END
    found = refusal(tmp_path / "a.recording", gzip.compress(text))
    assert found.startswith(f"line 2: {complaint}")


def test_a_file_that_is_cut_off_anywhere_is_refused(tmp_path: Path, good: dict[str, bytes]) -> None:
    content = good["probed"]
    for length in {0, 1, 9, 10, 11, 100, *range(len(content) - 9, len(content))}:
        assert refusal(tmp_path / "a.recording", content[:length])


@pytest.mark.parametrize("more", [b"\0", gzip.compress(b"", mtime=0), b"x" * 100])
def test_a_file_with_more_after_it_is_refused(
    tmp_path: Path, good: dict[str, bytes], more: bytes
) -> None:
    assert "nothing after" in refusal(tmp_path / "a.recording", good["probed"] + more)


@settings(max_examples=60)
@given(st.binary(max_size=400))
def test_noise_is_refused(tmp_path_factory: pytest.TempPathFactory, noise: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "noise.recording"
    assert refusal(path, noise)
    assert refusal(path, gzip.compress(noise, 1))
    assert refusal(path, gzip.compress(HEADER + noise, 1))


@settings(max_examples=60)
@given(st.integers(0, 2**32))
def test_a_flipped_bit_is_refused_or_makes_no_difference(
    tmp_path_factory: pytest.TempPathFactory, good: dict[str, bytes], seed: int
) -> None:
    """Of zeros, those 4 bytes back are as good as those 5 back."""
    content = bytearray(good["first_log"])
    at = random.Random(seed).randrange(10, len(content))
    content[at] ^= 1 << seed % 8
    path = tmp_path_factory.getbasetemp() / "flipped.recording"
    path.write_bytes(content)
    try:
        load_recording(path)
    except RecordingError:
        return
    assert gzip.decompress(content) == gzip.decompress(good["first_log"])


USES: dict[str, Callable[[Backend], object]] = {
    "probed": probed,
    "first_log": first_log,
    "sent": sent,
}
VALUES = st.one_of(
    st.integers(-2, 2**64),
    st.sampled_from([0, 1, 4095, 4096, 2**31 - 1, 2**31, 2**63]),
    st.text(max_size=8),
    st.binary(max_size=40).map(msgspec.to_builtins),
    st.none(),
    st.just({}),
    st.just([]),
)


def places(value: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to each value within a line."""
    inner = value.items() if isinstance(value, dict) else ()
    return [here, *(place for key, it in inner for place in places(it, (*here, key)))]


@settings(max_examples=150)
@given(st.data(), st.sampled_from(sorted(USES)))
def test_a_sound_file_with_a_changed_value_never_crashes_what_it_is_replayed_to(
    tmp_path_factory: pytest.TempPathFactory, good: dict[str, bytes], data: st.DataObject, name: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "changed.recording"
    path.write_bytes(good[name])

    def change(lines: list[Any]) -> None:
        line = data.draw(st.integers(0, len(lines) - 1))
        match data.draw(st.sampled_from(["value", "drop", "twice", "swap"])):
            case "drop":
                del lines[line]
            case "twice":
                lines.insert(line, lines[line])
            case "swap":
                lines[line], lines[-2] = lines[-2], lines[line]
            case _:
                *way, last = data.draw(st.sampled_from(places(lines[line])[1:]))
                target = lines[line]
                for key in way:
                    target = target[key]
                target[last] = data.draw(VALUES)

    rewritten(path, change)
    try:
        with ReplayBackend(path) as backend:
            USES[name](backend)
    except (KvmencError, AssertionError):
        pass  # AssertionError: the programs' own expectations


def memory_used(path: Path, content: bytes) -> tuple[str, int]:
    tracemalloc.start()
    try:
        found = refusal(path, content)
        return found, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_bomb_is_refused_before_it_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = packer.compress(HEADER) + b"".join(packer.compress(bytes(2**20)) for _ in range(40))
    bomb += packer.flush()
    monkeypatch.setattr(recordfile, "MAX_TEXT_BYTES", 8 * 2**20)
    found, used = memory_used(tmp_path / "a.recording", bomb)
    assert "expected at most 8388608 bytes of text" in found
    assert used < 24 * 2**20, "the text, once more while it grows, and a step"


def test_a_line_of_many_objects_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    pieces = b",".join(b'"%d":{"nbytes":0}' % number for number in range(100_000))
    line = b'{"call":"ioctl","fd":0,"request":1,"name":"n","before":{' + pieces + b"}}\n"
    content = gzip.compress(HEADER + line + END)
    found, used = memory_used(tmp_path / "a.recording", content)
    assert "expected at most 20000 objects" in found
    assert used < 12 * 2**20


def test_too_many_calls_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recordfile, "MAX_CALLS", 10)
    content = gzip.compress(HEADER + CLOSE * 11 + END)
    assert "expected at most 10 calls" in refusal(tmp_path / "a.recording", content)


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.recording"
    with path.open("wb") as file:
        file.write(gzip.compress(HEADER + CLOSE + END))
        file.truncate(recordfile.MAX_FILE_BYTES + 1)
    with pytest.raises(RecordingError, match="expected at most 67108864 bytes"):
        load_recording(path)


@pytest.mark.parametrize("limit", ["MAX_CALLS", "MAX_TEXT_BYTES", "MAX_FILE_BYTES"])
def test_what_no_reader_would_accept_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    monkeypatch.setattr(recordfile, limit, 5)
    path = tmp_path / "a.recording"
    path.write_bytes(b"old")
    backend = recorded(FakeBackend(host_named("sev")))
    probe(backend)
    with pytest.raises(RecordingError, match="is not written: "):
        backend.save(path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_written_is_told(tmp_path: Path) -> None:
    backend = recorded(FakeBackend(host_named("sev")))
    with pytest.raises(RecordingError, match="cannot be written: No such file or directory"):
        backend.save(tmp_path / "none" / "a.recording")


def test_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    for path, why in ((tmp_path, "Is a directory"), (tmp_path / "none", "No such file")):
        with pytest.raises(RecordingError, match=f"cannot be read: {why}"):
            load_recording(path)


def test_the_same_calls_make_the_same_bytes(tmp_path: Path) -> None:
    """No times are kept, and no addresses."""
    found = []
    for name in ("a", "b"):
        path = tmp_path / name
        record(path, FakeBackend(host_named("sev-v9")), first_log)
        found.append(path.read_bytes())
    assert found[0] == found[1]


def test_a_writer_keeps_what_it_was_given(tmp_path: Path) -> None:
    header = Header(kvmenc_version="1", backend="b", fake=False, contents=True, machine={})
    calls = (Opened(path="/dev/kvm", flags=2, fd=0), Opened(path="/dev/sev", flags=0, errno=2))
    writer = Writer(header)
    for call in calls:
        writer.add(call)
    writer.save(tmp_path / "a.recording")
    recording = load_recording(tmp_path / "a.recording")
    assert (recording.header, recording.calls) == (header, calls)
