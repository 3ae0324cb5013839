"""What differs from one QEMU to the next: data, no behaviour.

Read in the sources of each version, migration/migration.c (``migration_iteration_run``,
``migration_update_counters``, ``migration_completion``), migration/ram.c (``ram_save_iterate``,
``migration_bitmap_sync``, ``migration_trigger_throttle``) and softmmu or system/cpu-throttle.c. The
source of 11 was not to be had: its rules are those of Debian's 11.1.3 as a disassembler shows them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kvmenc.errors import InputError

if TYPE_CHECKING:
    from kvmenc.capture import Capture

__all__ = ["PROFILES", "QEMU_10_0", "Profile", "own_profile", "profile_for", "profile_named"]

#: A page and its header.
_PAGE_BYTES = 4096 + 8
#: Since 8.2 only what has left QEMU's buffer counts, of 64 pieces, two to a page
#: (migration/qemu-file.c, MAX_IOV_SIZE).
_FLUSH_BYTES = 32 * _PAGE_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """The rules of one QEMU's precopy.

    Attributes:
        version: as ``--qemu`` takes it.
        proven: which real migrations these rules were compared with, in words; empty: none by this
            version's own binary.
        basis: where the rules are from.
        window_ms: the rate limit and the measured bandwidth are per window (BUFFER_DELAY).
        slice_ms: one call to send pages ends after this long (more than MAX_WAIT, in whole ms).
        clock_pages: it looks at the clock after the first page and then every so many.
        clear_pages: the dirty log is cleared in chunks of this size as the sending reaches them
            (clear_bmap_shift; needs KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2).
        flush_bytes: what is sent counts against the rate limit in lots of about this size.
        call_bytes: what each call to send pages adds to them, as ``transferred`` counts it.
        at_threshold: as much pending as the threshold is little enough (``<=``, not ``<``).
        timer_ms: with auto-converge, a sync is made wherever so long a time passed without one;
            None: none is.
        multifd_zero_pages: multifd's own threads look for zero pages, and send no more than an
            offset of them.
        multifd_syncs_calls: multifd's connections are brought together after each call, and not
            after each round.
        counts_last_sync: ``dirty-sync-count`` counts the one that the stopped guest gets.
        counts_skipped: query-migrate still prints ``skipped``.
    """

    version: str
    proven: str = ""
    basis: str = "read in its source"
    window_ms: float = 100
    slice_ms: float = 51
    clock_pages: int = 64
    clear_pages: int = 2**18
    flush_bytes: int = _FLUSH_BYTES
    call_bytes: int = 18
    at_threshold: bool = False
    timer_ms: float | None = None
    multifd_zero_pages: bool = False
    multifd_syncs_calls: bool = False
    counts_last_sync: bool = True
    counts_skipped: bool = False

    @property
    def name(self) -> str:
        """As a plan names it."""
        return f"qemu-{self.version}"


QEMU_7_2 = Profile(
    version="7.2",
    proven="real runs of 7.2",
    flush_bytes=_PAGE_BYTES,
    call_bytes=8,
    multifd_syncs_calls=True,
    counts_skipped=True,
)
QEMU_8_2 = Profile(version="8.2", counts_skipped=True)
QEMU_10_0 = Profile(
    version="10.0", proven="real runs of 10.0", timer_ms=5000, multifd_zero_pages=True
)
QEMU_10_2 = Profile(version="10.2", timer_ms=5000, multifd_zero_pages=True, at_threshold=True)
QEMU_11 = Profile(
    version="11",
    basis="read in the machine code of 11.1 and seen in its traces",
    timer_ms=5000,
    multifd_zero_pages=True,
    at_threshold=True,
    counts_last_sync=False,
)

#: Oldest first.
PROFILES = {it.version: it for it in (QEMU_7_2, QEMU_8_2, QEMU_10_0, QEMU_10_2, QEMU_11)}

_VERSION = re.compile(r"(\d+)\.(\d+)")
_ASKED = re.compile(r"(\d{1,3})(?:\.(\d{1,3}))?(?:\.\d{1,3})?", re.ASCII)


def profile_named(version: str) -> Profile:
    """The rules of the version that ``--qemu`` names, as :func:`profile_for` finds them.

    Raises:
        InputError: it is no version, or older than all whose rules are known.
    """
    found = _ASKED.fullmatch(version)
    oldest = next(iter(PROFILES))
    if not found or (int(found[1]), int(found[2] or 0)) < _key(oldest):
        known = f"there are {', '.join(PROFILES)}, and each holds until the next"
        raise InputError(f"no rules of QEMU {version!a}: {known}")
    return profile_for(f"{found[1]}.{found[2] or 0}")


def profile_for(release: str | None) -> Profile:
    """The rules that fit a QEMU best: of its version, or of the newest before it.

    Args:
        release: as QEMU prints it, such as ``7.2.22``; None, or anything else: 10.0's.
    """
    found = _VERSION.match(release or "")
    if not found:
        return QEMU_10_0
    own = tuple(map(int, found.groups()))
    older = [it for it in PROFILES.values() if _key(it.version) <= own]
    return older[-1] if older else QEMU_7_2


def own_profile(capture: Capture) -> Profile:
    """The rules of the QEMU that was captured."""
    return profile_for(capture.provenance.qemu if capture.provenance else None)


def _key(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))
