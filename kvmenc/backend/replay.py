"""A backend that answers from a recording: the same calls get the same answers.

Calls are matched one by one, for each descriptor in its order, so that threads with a descriptor
each (vCPUs) may come in any order. Another call than the recorded one, or other arguments, raise
ReplayDivergence, and so does every call after it. Guest memory is as the program left it: no guest
runs. How long the calls took is not repeated.

A vCPU that was run by another thread than the one that made it is a guest beside the program: how
often it ran when the program stopped it is chance. So what such a vCPU has left when it is closed
is passed over; and where nothing is left, KVM_RUN is interrupted, as by a signal, until it is.
"""

from __future__ import annotations

import errno
import mmap
import os
import threading
import time
from collections import defaultdict, deque
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn, Self

from kvmenc import uapi
from kvmenc.backend.arguments import Way, argument_of
from kvmenc.backend.callmemory import (
    NO_FD,
    Part,
    parts_of,
    read,
    read_part,
    with_symbols_of,
    write,
)
from kvmenc.backend.matching import differences
from kvmenc.backend.recordfile import load_recording
from kvmenc.backend.recordmodel import (
    Closed,
    Ioctled,
    Mapped,
    Opened,
    Piece,
    Ran,
    Seen,
)
from kvmenc.backend.requests import in_words, listed, request_name
from kvmenc.backend.secrets import Secrets
from kvmenc.backend.slottable import SlotTable
from kvmenc.errors import ReplayDivergence

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from kvmenc.backend.recordmodel import Call, Change

__all__ = ["ReplayBackend"]

_Lane = int | str
_OPENS = "opens"
_MOST_CHARS = 2000
#: Of KVM_RUN in a row, a millisecond each, while nothing else is called.
_MOST_INTERRUPTIONS = 10_000


class ReplayBackend:
    """Answers from the recording in ``path``; a context manager.

    Leaving it without an exception calls ``finish``.

    Raises:
        RecordingError: the file is no sound recording.
    """

    def __init__(self, path: Path) -> None:
        recording = load_recording(path)
        self._path = path
        self.header = recording.header
        self.name = f"{recording.header.backend}, recorded"
        self._calls = recording.calls
        self._lanes: defaultdict[_Lane, deque[int]] = defaultdict(deque)
        for index, call in enumerate(recording.calls):
            self._lanes[_lane_of(call)].append(index)
        self._beside = _run_beside(recording.calls)
        self._lock = threading.RLock()
        self._fds: dict[int, int] = {}
        self._symbols: dict[int, int] = {}
        self._mapped: dict[int, int] = {}
        self._slots = SlotTable()
        self._secrets = Secrets()
        self._interruptions = 0
        self._divergence: str | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_rest: object) -> None:
        for fd in self._fds.values():
            with suppress(OSError):
                os.close(fd)
        self._fds.clear()
        if kind is None:
            self.finish()

    def finish(self) -> None:
        """Check that nothing is left of the recording.

        Raises:
            ReplayDivergence: calls were not made; or there was one before, which the program may
                have swallowed.
        """
        if self._divergence:
            raise ReplayDivergence(self._divergence)
        left = sorted(
            index
            for lane, indices in self._lanes.items()
            for index in indices
            if lane not in self._beside
        )
        if left:
            first = in_words(self._calls[left[0]])
            self._diverge(f"{len(left)} recorded calls were not made; the first: {first}", left[0])

    def open(self, path: str, flags: int) -> int:
        """As recorded."""
        with self._lock:
            call = self._take(_OPENS, Opened(path=path, flags=flags))
            _raise_errno(call)
            assert isinstance(call, Opened)
            return self._give(call.fd)

    def close(self, fd: int) -> None:
        """As recorded."""
        with self._lock:
            symbol = self._symbols.get(fd, NO_FD)
            if symbol in self._beside:
                self._pass_over(symbol)
            call = self._take(symbol, Closed(fd=symbol))
            self._symbols.pop(fd, None)
            self._slots.forget(symbol)
            if self._fds.pop(symbol, None) is not None:
                os.close(fd)
            _raise_errno(call)

    def mmap(self, fd: int, length: int, offset: int) -> mmap.mmap:
        """Memory of a file of our own, which later calls fill as the kernel did."""
        with self._lock:
            symbol = self._symbols.get(fd, NO_FD)
            call = self._take(symbol, Mapped(fd=symbol, length=length, offset=offset))
            _raise_errno(call)
            assert isinstance(call, Mapped)
            self._mapped[symbol] = max(self._mapped.get(symbol, 0), offset + length)
            os.ftruncate(fd, self._mapped[symbol])
            self._change(call.maps)
            return mmap.mmap(fd, length, offset=offset)

    def ioctl(self, fd: int, request: int, arg: int) -> int:
        """As recorded, with what the kernel wrote."""
        with self._lock:
            symbol = self._symbols.get(fd, NO_FD)
            interrupted = request == uapi.KVM_RUN and self._runs_on(symbol)
            if not interrupted:
                return self._ioctl(symbol, request, arg)
        time.sleep(0.001)
        raise InterruptedError(errno.EINTR, os.strerror(errno.EINTR))

    def _ioctl(self, symbol: int, request: int, arg: int) -> int:
        argument = argument_of(request)
        shape = argument.shape
        parts = list(parts_of(os.getpid(), shape, arg, self._slots.of(symbol))) if shape else []
        before = {it.name: read_part(os.getpid(), it, self._symbols, contents=True) for it in parts}
        asked = Ioctled(
            fd=symbol,
            request=int(request),
            name=request_name(request, before),
            arg=int(arg != 0) if shape else arg,
            before=before,
        )
        call = self._take(symbol, asked, parts)
        assert isinstance(call, Ioctled)
        self._write(call, {part.name: part for part in parts})
        self._change(call.maps)
        _raise_errno(call)
        self._slots.learn(os.getpid(), symbol, request, arg)
        return self._give(call.gives) if argument.gives_fd else call.result

    def seen(self, what: str, _read: Callable[[], float | bytes]) -> float | bytes:
        """What was seen when it was recorded."""
        with self._lock:
            call = self._take(f"seen {what}", Seen(what=what, value=0))
            assert isinstance(call, Seen)
            return call.value

    def certificates(self) -> tuple[bytes, bytes, bytes] | None:
        """PDH, PEK to CEK, and AMD's, that a guest was sent under in the recording."""
        for call in self._calls:
            if isinstance(call, Ioctled):
                names = ("pdh_cert", "plat_certs", "amd_certs")
                found = [call.before.get(f"arg.data.{name}_uaddr") for name in names]
                pdh, plat, amd = (piece and piece.data for piece in found)
                if pdh and plat and amd:
                    return pdh, plat, amd
        return None

    def _take(self, lane: _Lane, asked: Call, parts: list[Part] | None = None) -> Call:
        """The next recorded call of a lane, which is the same as ``asked``."""
        if self._divergence:
            raise ReplayDivergence(self._divergence)
        if not self._lanes[lane]:
            self._diverge(f"recorded nothing more there, called {in_words(asked)}", None)
        index = self._lanes[lane][0]
        recorded = self._calls[index]
        found = differences(recorded, asked, parts or [], self._secrets)
        if found:
            both = f"recorded {in_words(recorded)}, called {in_words(asked)}"
            self._diverge(f"{both}: {listed(found)}", index)
        self._lanes[lane].popleft()
        self._interruptions = 0
        return recorded

    def _diverge(self, what: str, index: int | None) -> NoReturn:
        where = "at its end" if index is None else f"at call {index + 1} (line {index + 2})"
        text = f"{self._path}: the replay diverges {where}: {what}"
        if index is None:
            text += "; it answers the command and the options that it was made with"
        self._divergence = (text if text.isprintable() else ascii(text)[1:-1])[:_MOST_CHARS]
        raise ReplayDivergence(self._divergence)

    def _give(self, symbol: int) -> int:
        """A descriptor of ours for that of the recording."""
        fd = os.memfd_create("kvmenc-replay", os.MFD_CLOEXEC)
        if symbol in self._fds or symbol == NO_FD:
            os.close(fd)
            self._diverge(f"it gives descriptor {symbol} twice or never: made up?", None)
        self._fds[symbol], self._symbols[fd] = fd, symbol
        return fd

    def _change(self, changes: tuple[Change, ...]) -> None:
        for change in changes:
            if change.offset + len(change.data) <= self._mapped.get(change.fd, 0):
                with suppress(KeyError):  # closed meanwhile
                    os.pwrite(self._fds[change.fd], change.data, change.offset)

    def _write(self, call: Ioctled, parts: Mapping[str, Part]) -> None:
        """Write what came out of a call where the caller wants it."""
        for name, piece in call.after.items():
            part = parts.get(name)
            if part is None or part.nbytes != piece.nbytes or Way.OUT not in part.way:
                self._diverge(f"{call.name} wrote {piece.nbytes} bytes of {name}: none here", None)
            data = self._bytes_of(piece, part)
            if data is not None and not write(os.getpid(), part.address, data):
                self._diverge(f"{call.name}: {name} cannot be written here", None)

    def _bytes_of(self, piece: Piece, part: Part) -> bytes | None:
        if piece.data is None:
            return self._secrets.filled(piece.digests, piece.nbytes) if piece.digests else None
        own = read(os.getpid(), part.address, part.nbytes) if part.shape else None
        return with_symbols_of(part.shape, piece.data, own) if part.shape and own else piece.data

    def _runs_on(self, symbol: int) -> bool:
        """Whether a guest beside the program has no exit left, and this one is not its last."""
        left = self._lanes[symbol]
        if symbol not in self._beside or any(not isinstance(self._calls[i], Closed) for i in left):
            return False
        self._interruptions += 1
        return self._divergence is None and self._interruptions <= _MOST_INTERRUPTIONS

    def _pass_over(self, symbol: int) -> None:
        """Forget what a guest beside the program would have done before it was closed."""
        left = self._lanes[symbol]
        while left and not isinstance(self._calls[left[0]], Closed):
            left.popleft()


def _lane_of(call: Call) -> _Lane:
    match call:
        case Opened():
            return _OPENS
        case Seen(what=what):
            return f"seen {what}"
        case Ioctled(fd=fd) | Mapped(fd=fd) | Closed(fd=fd) | Ran(fd=fd):
            return fd
    raise AssertionError(call)


def _run_beside(calls: tuple[Call, ...]) -> set[int]:
    """Those vCPUs that another thread ran than the one that made them."""
    makers: dict[int, int] = {}
    found = set()
    for call in calls:
        if isinstance(call, Ioctled):
            if call.gives != NO_FD:
                makers[call.gives] = call.thread
            elif call.request == uapi.KVM_RUN and makers.get(call.fd) != call.thread:
                found.add(call.fd)
    return found


def _raise_errno(call: Call) -> None:
    if call.errno:
        raise OSError(call.errno, os.strerror(call.errno))
