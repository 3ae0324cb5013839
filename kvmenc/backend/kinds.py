"""What a program may ask of a backend besides calls: is it fake, what machine, what does it see."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from kvmenc.backend.fake import FakeBackend
from kvmenc.backend.local import LocalBackend
from kvmenc.backend.machine import read_machine, write_machine
from kvmenc.backend.recording import RecordingBackend
from kvmenc.backend.replay import ReplayBackend

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fakekvm import Kernel
    from kvmenc.backend.base import Backend

__all__ = [
    "beneath",
    "clock_of",
    "fake_kernel",
    "is_fake",
    "machine_root",
    "recorded",
    "seen",
    "seen_bytes",
]


def beneath(backend: Backend) -> Backend:
    """The backend that a recording one keeps the answers of; any other is itself."""
    return backend.lower if isinstance(backend, RecordingBackend) else backend


def is_fake(backend: Backend) -> bool:
    """Whether fakekvm answers, or answered what is replayed.

    Then there is no machine to look at, and guests are scripts.
    """
    if isinstance(backend, ReplayBackend):
        return backend.header.fake
    return isinstance(beneath(backend), FakeBackend)


def fake_kernel(backend: Backend) -> Kernel | None:
    """The fake itself, also below a recording; None of a replay: there nothing runs."""
    lower = beneath(backend)
    return lower.kernel if isinstance(lower, FakeBackend) else None


def recorded(lower: Backend, *, contents: bool = False, root: Path = Path("/")) -> RecordingBackend:
    """``lower`` with all that it answers kept.

    Args:
        lower: who carries the calls out.
        contents: keep secrets and guest contents too.
        root: where the machine's files are.
    """
    fake = is_fake(lower)
    machine = {} if fake else read_machine(root)
    return RecordingBackend(lower, fake=fake, machine=machine, contents=contents)


def seen(backend: Backend, what: str, read: Callable[[], float]) -> float:
    """What ``read`` says, kept by a recording, and said again by its replay.

    For what a program sees besides its calls, and that decides which calls it makes: a clock, or
    how far another thread is.
    """
    if isinstance(backend, RecordingBackend | ReplayBackend | LocalBackend):
        value = backend.seen(what, read)
        return 0 if isinstance(value, bytes) else value
    return read()


def seen_bytes(backend: Backend, what: str, read: Callable[[], bytes]) -> bytes:
    """The same for bytes."""
    if isinstance(backend, RecordingBackend | ReplayBackend | LocalBackend):
        value = backend.seen(what, read)
        return value if isinstance(value, bytes) else b""
    return read()


def clock_of(backend: Backend, now: Callable[[], float]) -> Callable[[], float]:
    """``now`` as ``seen``."""
    return lambda: seen(backend, "clock", now)


@contextmanager
def machine_root(backend: Backend) -> Iterator[Path]:
    """Where the files of the machine are that ``backend`` answers for: ours, or the recorded."""
    if not isinstance(backend, ReplayBackend):
        yield Path("/")
        return
    with TemporaryDirectory(prefix="kvmenc-") as folder:
        write_machine(backend.header.machine, Path(folder))
        yield Path(folder)
