"""The line between both ends: what is put on it, what goes wrong on it, and who else hears it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from kvmenc.rehearsal.records import Sealer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from kvmenc.memory.maps import PrivateMap
    from kvmenc.rehearsal.faults import Striker
    from kvmenc.rehearsal.records import PagesRecord

__all__ = ["Line", "Listener"]


class Listener(Protocol):
    """Who hears what is sent."""

    def round_begins(self, *, stopped: bool) -> None:
        """What follows is sent after another sync."""

    def hear(self, record: PagesRecord) -> None:
        """A record that arrived."""

    def switched(self, private: Mapping[str, PrivateMap]) -> None:
        """All has arrived; these pages are private."""


class Line:
    """From the source to the destination.

    Args:
        key: that both ends have.
        deliver: the other end.
        striker: what goes wrong.
        listeners: others.

    Attributes:
        moved_pages: so far.
        sent_bytes: so far.
    """

    def __init__(
        self,
        key: bytes,
        deliver: Callable[[bytes], None],
        striker: Striker,
        listeners: tuple[Listener, ...] = (),
    ) -> None:
        self._sealer, self._deliver = Sealer(key), deliver
        self._striker, self._listeners = striker, listeners
        self.moved_pages = self.sent_bytes = 0

    def round_begins(self, *, stopped: bool) -> None:
        """What follows is sent after another sync."""
        self._striker.round_begins(stopped=stopped)
        for it in self._listeners:
            it.round_begins(stopped=stopped)

    def put(self, record: PagesRecord) -> None:
        """Send a record.

        Raises:
            Broken: the line is cut.
            KvmencError: whatever the other end refuses it with.
        """
        self._striker.on_the_line(record)
        sealed = self._sealer.seal(record.encode())
        self._deliver(sealed)
        self.moved_pages += record.pages
        self.sent_bytes += len(sealed)
        for it in self._listeners:
            it.hear(record)

    def switched(self, private: Mapping[str, PrivateMap]) -> None:
        """All has arrived."""
        for it in self._listeners:
            it.switched(private)
