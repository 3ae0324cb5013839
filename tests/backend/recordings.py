"""Programs that are recorded on a host, and replayed."""

from __future__ import annotations

import base64
import gzip
from typing import TYPE_CHECKING, TypeVar

import msgspec

from kvmenc.backend.kinds import recorded
from kvmenc.backend.recordfile import load_recording
from kvmenc.backend.recordmodel import Ioctled
from kvmenc.backend.replay import ReplayBackend
from kvmenc.guest.program import Flip, Program, Tick, WriteRun
from kvmenc.guest.scratch import ScratchVm
from kvmenc.kvm import Exit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import Any

    from kvmenc.backend import Backend

T = TypeVar("T")

PROGRAM: Program = (
    WriteRun(0x100, 70),
    Flip(0x200, 100, private=False),
    WriteRun(0x10000, 3),
    Tick(),
)


def record(path: Path, lower: Backend, use: Callable[[Backend], T], *, contents: bool = False) -> T:
    backend = recorded(lower, contents=contents)
    result = use(backend)
    backend.save(path)
    return result


def replay(path: Path, use: Callable[[Backend], T]) -> T:
    with ReplayBackend(path) as backend:
        return use(backend)


def first_log(backend: Backend) -> bytes:
    """The smallest job: one guest, one reading, one clearing."""
    with ScratchVm(backend) as machine:
        machine.load(PROGRAM)
        assert machine.vcpu.run(timeout_s=10) == Exit.IO
        slot = machine.layout.slots[2]
        words = machine.vm.dirty_log(slot)
        machine.vm.clear_dirty_log(slot, words)
        return words.tobytes()


def ioctls(path: Path, request: int) -> list[Ioctled]:
    calls = load_recording(path).calls
    return [it for it in calls if isinstance(it, Ioctled) and it.request == request]


def all_bytes(path: Path) -> Iterator[bytes]:
    """All text of a file, and all bytes that its calls hold."""
    yield gzip.decompress(path.read_bytes())
    for call in load_recording(path).calls:
        yield from _bytes_in(msgspec.to_builtins(call))


def _bytes_in(value: Any) -> Iterator[bytes]:
    """Msgspec's builtins hold bytes as base64."""
    if isinstance(value, dict):
        for it in value.values():
            yield from _bytes_in(it)
    elif isinstance(value, list | tuple):
        for it in value:
            yield from _bytes_in(it)
    elif isinstance(value, str):
        try:
            yield base64.b64decode(value, validate=True)
        except ValueError:
            return


def rewritten(path: Path, change: Callable[[list[Any]], object]) -> None:
    """Change the JSON of a file's lines."""
    lines = [msgspec.json.decode(it) for it in gzip.decompress(path.read_bytes()).splitlines()]
    change(lines)
    path.write_bytes(gzip.compress(b"".join(msgspec.json.encode(it) + b"\n" for it in lines), 1))
