"""A destination in a process of its own: another host has its own CPU, memory and firmware.

What crosses is bytes: the sealed records, and a few questions. Records are not answered, so both
ends work at the same time; that one was refused shows with a later one, or at the end. Whoever has
refused one refuses all that follow: such a guest never runs there.
Nothing comes from outside: both processes are this program.
"""

from __future__ import annotations

import pickle
import socket
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from kvmenc.errors import KvmencError
from kvmenc.rehearsal.heap import keep_freed_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from kvmenc.firmware import Certificates
    from kvmenc.memory.layout import Layout
    from kvmenc.memory.maps import PrivateMap
    from kvmenc.memory.words import Pages, Words
    from kvmenc.rehearsal.destination import Opening
    from kvmenc.rehearsal.side import Flags, Rows

__all__ = ["RECORD", "FarTarget", "TargetRefused", "far_target"]

RECORD, _CALL = b"r", b"c"

#: Some records, so that the source goes on while the destination is at one.
_ON_THE_WAY_BYTES = 8 << 20


class TargetRefused(KvmencError):
    """The destination ended the migration; the text is its reason.

    Attributes:
        of_record: it refused a record, which nobody had asked about.
    """

    def __init__(self, reason: str, *, of_record: bool = False) -> None:
        super().__init__(reason)
        self.of_record = of_record


class FarTarget:
    """A ``Target`` at the other end of a connection.

    Args:
        connection: to ``python -m kvmenc.rehearsal``.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def take(self, sealed: bytes) -> None:
        """A record from the line.

        Raises:
            TargetRefused: one before it was refused, or the destination is gone.
        """
        if self._connection.poll():
            self._receive()
        self._send(RECORD + sealed)

    def _call(self, name: str, *args: object) -> Any:  # noqa: ANN401 - what the method returns
        """Ask, and wait for that answer."""
        self._ask(name, *args)
        return self._answer()

    def _ask(self, name: str, *args: object) -> None:
        self._send(_CALL + pickle.dumps((name, args)))

    def _answer(self) -> Any:  # noqa: ANN401 - as above
        """What was asked last; the refusal of a record may come before it."""
        refusal: TargetRefused | None = None
        while True:
            try:
                of_record, value = self._receive()
            except TargetRefused as error:
                refusal = refusal or error
                if not error.of_record:
                    raise refusal from None
                continue
            assert not of_record, "only refusals of records are told"
            return value

    def _send(self, message: bytes) -> None:
        try:
            self._connection.send_bytes(message)
        except OSError as error:
            raise TargetRefused(f"the destination is gone: {error.strerror}") from error

    def _receive(self) -> tuple[bool, Any]:
        try:
            of_record, refused, value = pickle.loads(self._connection.recv_bytes())
        except (EOFError, OSError) as error:
            raise TargetRefused("the destination is gone") from error
        if refused:
            raise TargetRefused(value, of_record=of_record)
        return of_record, value

    def certificates(self) -> Certificates:
        """Of its platform."""
        found: Certificates = self._call("certificates")
        return found

    def begin(self, opening: Opening) -> None:
        """A guest is to arrive."""
        self._call("begin", opening)

    def finish(self, private: Mapping[str, Words]) -> None:
        """All has come, and these pages are private: the guest may run here."""
        self._call("finish", dict(private))

    def runs(self) -> bool:
        """Whether its firmware says that the guest may run here."""
        try:
            return bool(self._call("runs"))
        except TargetRefused:
            return False

    def private_now(self) -> Mapping[str, PrivateMap]:
        """Each RAMBlock's private pages, asked of its KVM now."""
        found: Mapping[str, PrivateMap] = self._call("private_now")
        return found

    def view(self, block: int, pages: slice, private: Flags) -> tuple[Pages, Rows]:
        """Pages of a RAMBlock as the guest reads them; see ``Side.view``."""
        found: tuple[Pages, Rows] = self._call("view", block, pages, private)
        return found

    def digest_later(self, block: int, pages: slice, private: Flags) -> Callable[[], bytes]:
        """Of such pages, begun there now; nothing else may be asked before it was waited for."""
        self._ask("digest", block, pages, private)
        return self._answer


@contextmanager
def far_target(shape: Layout) -> Iterator[FarTarget]:
    """A destination in a process of its own, which ends with this block.

    Both processes keep freed memory from now on; see ``heap``.
    """
    keep_freed_memory()
    ours, theirs = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _ON_THE_WAY_BYTES)
    with ExitStack() as cleanup:
        with theirs:
            command = [sys.executable, "-m", "kvmenc.rehearsal", str(theirs.fileno())]
            child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()], process_group=0
            )
        cleanup.callback(child.wait)
        connection = cleanup.enter_context(Connection(ours.detach()))
        connection.send_bytes(pickle.dumps((shape.slots, shape.blocks)))
        yield FarTarget(connection)
