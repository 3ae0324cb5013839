"""What QEMU's query-migrate would print, field by field."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import UNSET, UnsetType

from kvmenc.plan.result import QueryMigrate, RamStats, XbzrleCache
from kvmenc.plan.roads import multifd_share

if TYPE_CHECKING:
    from kvmenc.plan.parameters import Parameters
    from kvmenc.plan.precopy import Outcome
    from kvmenc.plan.profile import Profile
    from kvmenc.plan.result import Counts, Guest, PlannedRound, Totals

__all__ = ["query_migrate"]


def query_migrate(
    outcome: Outcome,
    rounds: tuple[PlannedRound, ...],
    totals: Totals,
    guest: Guest,
    parameters: Parameters,
    profile: Profile,
) -> QueryMigrate:
    """The answer at the end, or when it was given up."""
    completed, throttle = outcome.end == "completed", outcome.counters.throttle_pct
    return QueryMigrate(
        status="completed" if completed else "active",
        ram=_ram(outcome, rounds, totals, guest, parameters, profile),
        total_time=round(outcome.total_ms),
        setup_time=round(outcome.setup_ms),
        xbzrle_cache=_xbzrle(outcome, totals, guest, parameters),
        cpu_throttle_percentage=throttle if throttle and not completed else UNSET,
        expected_downtime=UNSET if completed else round(outcome.counters.expected_downtime_ms),
        downtime=UNSET if outcome.downtime_ms is None else round(outcome.downtime_ms),
    )


def _ram(
    outcome: Outcome,
    rounds: tuple[PlannedRound, ...],
    totals: Totals,
    guest: Guest,
    parameters: Parameters,
    profile: Profile,
) -> RamStats:
    """Encrypted pages are counted as normal, as openEuler's QEMU does (migration/ram.c)."""
    counters, completed = outcome.counters, outcome.end == "completed"
    transferred = totals.bytes.total + round(counters.other_bytes)
    stopped = [one.bytes for one in rounds if one.stopped]
    beside = [_beside(it, parameters, profile) for it in (totals.bytes, *stopped)]
    while_stopped = sum(it.total for it in stopped) - sum(beside[1:])
    by_multifd = beside[0] + round(counters.other_bytes * multifd_share(parameters, profile))
    postcopy = round(outcome.postcopy_bytes)
    normal = totals.pages.normal + totals.pages.encrypted - round(counters.known_pages)
    sending_ms = outcome.total_ms - outcome.setup_ms
    return RamStats(
        transferred=transferred,
        remaining=0 if completed else round(outcome.pending_bytes),
        total=guest.pages * guest.page_size,
        duplicate=totals.pages.zero,
        normal=normal,
        normal_bytes=normal * guest.page_size,
        dirty_pages_rate=0 if completed else round(counters.dirty_pages_rate),
        mbps=(
            transferred * 8 / sending_ms / 1000
            if completed
            else counters.bandwidth_bytes_per_ms * 8 / 1000
        ),
        dirty_sync_count=counters.sync_count - (completed and not profile.counts_last_sync),
        pages_per_second=round(counters.pages_per_second),
        page_size=guest.page_size,
        precopy_bytes=max(0, transferred - while_stopped - postcopy - by_multifd),
        downtime_bytes=while_stopped,
        postcopy_bytes=postcopy,
        multifd_bytes=by_multifd,
        skipped=0 if profile.counts_skipped else UNSET,
    )


def _beside(size: Counts, parameters: Parameters, profile: Profile) -> int:
    """Bytes of pages that multifd's connections carry: nowhere else does QEMU count these."""
    if not parameters.multifd_channels:
        return 0
    return size.normal + (size.zero if profile.multifd_zero_pages else 0)


def _xbzrle(
    outcome: Outcome, totals: Totals, guest: Guest, parameters: Parameters
) -> XbzrleCache | UnsetType:
    """Its figures as far as they are known: of an encoded page only the mean size is."""
    if parameters.xbzrle is None:
        return UNSET
    pages = round(outcome.counters.known_pages)
    again = max(0, totals.pages.normal - _first_normal(guest))
    encoded = parameters.xbzrle.encoded_share * guest.page_size
    return XbzrleCache(
        cache_size=round(parameters.xbzrle.cache_bytes),
        bytes=round(pages * (encoded + 3)),
        pages=pages,
        cache_miss=max(0, again - pages),
        cache_miss_rate=0.0,
        encoding_rate=0.0,
        overflow=0,
    )


def _first_normal(guest: Guest) -> int:
    """Pages that are sent whole before xbzrle begins."""
    return guest.pages - guest.private_pages - (guest.zero_pages or 0)
