"""Writes by devices, which KVM's log never holds, followed beside the looks of one window."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvmenc.capture import DeviceCurve, DevicePoint

if TYPE_CHECKING:
    from collections.abc import Callable

    from kvmenc.contents import DeviceEstimate, DeviceWrites, Look
    from kvmenc.memory.maps import DirtyMap

__all__ = ["DeviceLog"]


class DeviceLog:
    """Device writes since a moment within a window.

    The contents are hashed at growing distances in time, so that hashing takes a small share of a
    host CPU however long the window is.

    Args:
        writes: hashes a sample of the guest's pages.
        clock: seconds, the same as that of the looks.
    """

    def __init__(self, writes: DeviceWrites, clock: Callable[[], float]) -> None:
        self._writes = writes
        self._clock = clock
        self._points: list[DevicePoint] = []
        self._look: Look | None = None
        self._last: DeviceEstimate | None = None
        writes.baseline()
        self._start_s = clock()
        self._due_s = 0.25

    def look_if_due(self) -> bool:
        """Hash the sample again, if it is time; the dirty log must be looked at next, twice.

        Twice, because with page-modification logging the first look only has the vCPUs write down
        what they hold back (see ``kvmenc.contents.devices``).
        """
        since_s = self._clock() - self._start_s
        if since_s >= self._due_s:
            self._look = self._writes.look()
            self._due_s = 2 * since_s
        return self._look is not None

    def add(self, dirty: dict[str, DirtyMap]) -> None:
        """Tell pages written by devices from those that the dirty log holds by now."""
        if self._look is None:
            return
        ms = (self._clock() - self._start_s) * 1e3
        found, self._look = self._writes.written(self._look, dirty), None
        pages = tuple(found.blocks[name].pages for name in dirty)
        self._points.append(DevicePoint(ms, pages, found.total.low_pages, found.total.high_pages))
        self._last = found

    def curve(self) -> DeviceCurve | None:
        """What was found; None if there was no time for a second hash."""
        if self._last is None:
            return None
        return DeviceCurve(
            points=tuple(self._points),
            confidence=self._last.confidence,
            sampled_pages=self._last.sampled_pages,
            population_pages=self._last.population_pages,
        )
