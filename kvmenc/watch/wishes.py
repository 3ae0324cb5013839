"""What a user wants of a capture, and what comes of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kvmenc.errors import HostError

if TYPE_CHECKING:
    from pathlib import Path

    from kvmenc.capture import BitmapKind, Capture
    from kvmenc.encstate.choose import SourceName
    from kvmenc.memory.words import Words

__all__ = ["CannotPeek", "OnPoint", "Watched", "Wishes"]


class CannotPeek(HostError):
    """It cannot be shown that looking at this VM's dirty log takes nothing from other readers."""


#: Told of each point: seconds since the capture began, and pages written since t = 0.
OnPoint = Callable[[float, int], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What the user asked for.

    Attributes:
        seconds: how long to watch.
        pid: QEMU's process; None: found through its vCPU threads.
        private: which source of private/shared; None: the best at hand.
        revision: the posting of KVM_GET_PAGE_ENC_BITMAP that the host's kernel has.
        enc_log: a log of the guest's announcements since its start.
        contents: whether the guest's memory may be read, for zero pages and device writes.
        during_migration: look even though a migration is going on.
        trace: QEMU's log of kvm_set_user_memory since its start, for ``during_migration``.
    """

    seconds: float
    pid: int | None = None
    private: SourceName | None = None
    revision: str | None = None
    enc_log: Path | None = None
    contents: bool = True
    during_migration: bool = False
    trace: Path | None = None


@dataclass(frozen=True, slots=True)
class Watched:
    """A capture with its bitmaps.

    Attributes:
        capture: the facts.
        bitmaps: by kind and RAMBlock.
        trouble: why it ended before its time, where that is for the caller to report.
    """

    capture: Capture
    bitmaps: dict[tuple[BitmapKind, str], Words]
    trouble: BaseException | None = None
