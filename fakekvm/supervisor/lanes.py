"""Threads in which calls are carried out that can last: KVM_RUN, commands of the SEV firmware."""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from fakekvm.calls import File

__all__ = ["Lanes"]


class _Lane:
    """One thread, for the calls on one file: these wait for each other in the kernel too."""

    def __init__(self, name: str) -> None:
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._waiting = 0
        self._lock = threading.Lock()
        threading.Thread(target=self._work, name=name, daemon=True).start()

    def add(self, call: Callable[[], None] | None) -> None:
        with self._lock:
            self._waiting += 1
        self._calls.put(call)

    def is_free(self) -> bool:
        return not self._waiting

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            call()
            with self._lock:
                self._waiting -= 1


class Lanes:
    """The lanes of all files that have needed one."""

    def __init__(self) -> None:
        self._lanes: dict[File, _Lane] = {}

    def is_free(self, file: File) -> bool:
        """Whether no call on this file is under way in its lane."""
        lane = self._lanes.get(file)
        return lane is None or lane.is_free()

    def add(self, file: File, call: Callable[[], None]) -> None:
        """Carry a call out behind those on the same file that came before."""
        lane = self._lanes.get(file)
        if lane is None:
            lane = self._lanes[file] = _Lane(file.kind)
        lane.add(call)

    def end(self, file: File) -> None:
        """The file is closed."""
        lane = self._lanes.pop(file, None)
        if lane is not None:
            lane.add(None)
