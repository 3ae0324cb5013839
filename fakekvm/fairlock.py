"""A lock that a busy loop cannot keep from others."""

from __future__ import annotations

import threading

__all__ = ["FairLock"]


class FairLock:
    """Like ``threading.Lock``, but who waits gets it before who releases it gets it again.

    A vCPU that runs takes its VM's lock over and over. With a plain lock it would nearly always
    win against a thread that waits to read the dirty log. Here a waiter holds the gate, so that
    the vCPU has to stop at the gate until the waiter has had the lock.
    """

    __slots__ = ("_gate", "_lock")

    def __init__(self) -> None:
        self._gate = threading.Lock()
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        with self._gate:
            self._lock.acquire()

    def __exit__(self, *_exc: object) -> None:
        self._lock.release()
