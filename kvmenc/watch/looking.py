"""The looks of one window, at the times of the schedule, until it ends one way or another."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from kvmenc.errors import HostError, SlotNotLogged
from kvmenc.watch.schedule import sample_times_ms
from kvmenc.watch.window import WindowLog

if TYPE_CHECKING:
    from collections.abc import Callable

    from kvmenc.capture import EndedBy, Window
    from kvmenc.memory.layout import Layout
    from kvmenc.memory.sync import PrivateSource
    from kvmenc.watch.device import DeviceLog
    from kvmenc.watch.peeks import Peeks
    from kvmenc.watch.start import Start
    from kvmenc.watch.wishes import OnPoint

__all__ = ["Looking"]

# Until then looks are dense; hashing contents or asking QEMU between them would delay them.
_DENSE_MS = 1000.0
# QEMU answers under its big lock, for milliseconds where there are many devices.
_CHECK_MS = 5000.0


class Looking:
    """One window being watched.

    Args:
        layout: the guest's memslots and RAMBlocks.
        private: where private/shared comes from.
        peeks: looks at the dirty log.
        start: t = 0.
        change: what has changed that makes looks mean something else; None: nothing.
        follow_devices: begins to follow device writes; None: they are not followed.

    Attributes:
        log: what was seen.
        devices: what devices wrote.
        ended_by: why it ended.
        trouble: the error or Ctrl-C that ended it, if one did.
        late_s: by how much the latest look came after its time.
    """

    def __init__(
        self,
        layout: Layout,
        private: PrivateSource,
        peeks: Peeks,
        start: Start,
        change: Callable[[], EndedBy | None],
        follow_devices: Callable[[], DeviceLog] | None,
    ) -> None:
        self.devices: DeviceLog | None = None
        self.ended_by: EndedBy = "time"
        self.trouble: BaseException | None = None
        self.late_s = 0.0
        self.log = WindowLog(layout, private, start)
        self._peeks = peeks
        self._start = start
        self._change = change
        self._follow_devices = follow_devices
        self._sure = 0

    def run(self, seconds: float, on_point: OnPoint) -> None:
        """Look for ``seconds`` after t = 0, or until the window ends of itself."""
        try:
            check_ms = min(_DENSE_MS, seconds * 1e3 / 2)
            for at_ms in sample_times_ms(seconds):
                self._wait_until(self._start.at_s + at_ms / 1e3)
                if not self._look(on_point):
                    return
                if at_ms >= min(check_ms, seconds * 1e3):
                    check_ms = at_ms + _CHECK_MS
                    if not self._check():
                        return
        except SlotNotLogged:
            self.ended_by = "log-stopped"
        except HostError as error:
            self.ended_by, self.trouble = "vm-gone", error
        except KeyboardInterrupt as error:
            self.ended_by, self.trouble = "interrupted", error

    def _wait_until(self, due_s: float) -> None:
        left_s = due_s - time.monotonic()
        self.late_s = max(self.late_s, -left_s)
        time.sleep(max(0.0, left_s))

    def _look(self, on_point: OnPoint) -> bool:
        """Add a point; False: there is none, as somebody else had cleared bits."""
        if self.devices and self.devices.look_if_due():
            self._peeks.take()
        peek = self._peeks.take()
        if self._peeks.cleared_since_last(peek):
            self.ended_by = "another-reader"
            return False
        point = self.log.add(peek)
        if self.devices:
            self.devices.add(self.log.maps.dirty)
        on_point(point.ms / 1e3, sum(point.private_pages) + sum(point.shared_pages))
        return True

    def _check(self) -> bool:
        """Whether the points so far are sound; those that may not be are dropped."""
        change = self._change()
        if change:
            del self.log.points[self._sure :]
            self.ended_by = change
            return False
        self._sure = len(self.log.points)
        if self._follow_devices and not self.devices:
            self.devices = self._follow_devices()
        return True

    def window(self, opened_s: float) -> Window | None:
        """What goes into the capture; None if there is no point in it."""
        return self.log.end(opened_s, self.ended_by) if self.log.points else None
