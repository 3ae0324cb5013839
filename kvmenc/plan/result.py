"""A plan as data: what ``kvmenc plan --json`` prints, schema ``kvmenc.plan/1``."""

from __future__ import annotations

from typing import Literal

from msgspec import UNSET, Struct, UnsetType

__all__ = [
    "Counts",
    "Guest",
    "Inputs",
    "Plan",
    "PlannedRound",
    "QueryMigrate",
    "RamStats",
    "Times",
    "Totals",
]

Verdict = Literal["converges", "does-not-converge"]
Bottleneck = Literal["network", "firmware"]


class Counts(Struct, frozen=True):
    """Whole pages or bytes, by road."""

    normal: int
    zero: int
    encrypted: int

    @property
    def total(self) -> int:
        """Of all roads."""
        return self.normal + self.zero + self.encrypted


class Times(Struct, frozen=True):
    """Milliseconds, by road."""

    normal: float
    zero: float
    encrypted: float


class Guest(Struct, frozen=True):
    """What was migrated in thought; zero pages are null when nobody looked for them."""

    source: str
    private_source: str
    holds: str
    page_size: int
    pages: int
    private_pages: int
    zero_pages: int | None
    unlogged_pages: int


class Inputs(Struct, frozen=True):
    """The parameters in force, defaults filled in; no time limit is null."""

    max_bandwidth_bytes_per_s: float
    link_bytes_per_s: float
    downtime_limit_ms: float
    time_limit_ms: float | None
    private_rate_pps: float


class PlannedRound(Struct, frozen=True):
    """From one sync to the next.

    Attributes:
        ms: its length, waiting included.
        dirty_pages: pending at its start, after the sync.
        private_pages: of these private.
        pages: sent in it. Pages left over stay pending.
        bytes: on the wire.
        bottleneck: where more than half of the time went.
        stopped: whether the guest was stopped; true of the last round of a migration that ends.
    """

    ms: float
    dirty_pages: int
    private_pages: int
    pages: Counts
    bytes: Counts
    bottleneck: Bottleneck
    stopped: bool


class Totals(Struct, frozen=True):
    """Over all rounds.

    Attributes:
        pages: sent, a page sent twice counting twice.
        bytes: on the wire.
        ms: the time it took, waiting shared out.
        bottleneck: where more than half of the time went.
    """

    pages: Counts
    bytes: Counts
    ms: Times
    bottleneck: Bottleneck


class RamStats(Struct, frozen=True, rename="kebab"):
    """The ``ram`` member of query-migrate (QEMU 10.0, qapi/migration.json, MigrationStats)."""

    transferred: int
    remaining: int
    total: int
    duplicate: int
    normal: int
    normal_bytes: int
    dirty_pages_rate: int
    mbps: float
    dirty_sync_count: int
    pages_per_second: int
    page_size: int
    precopy_bytes: int
    downtime_bytes: int
    postcopy_requests: int = 0
    multifd_bytes: int = 0
    postcopy_bytes: int = 0
    dirty_sync_missed_zero_copy: int = 0


class QueryMigrate(Struct, frozen=True, rename="kebab"):
    """What query-migrate would answer at the end, or at giving up (MigrationInfo)."""

    status: Literal["active", "completed"]
    ram: RamStats
    total_time: int
    setup_time: int = 0
    expected_downtime: int | UnsetType = UNSET
    downtime: int | UnsetType = UNSET


class Plan(Struct, frozen=True, kw_only=True):
    """What a migration would do.

    Attributes:
        schema: ``kvmenc.plan/1``.
        verdict: ``converges`` or ``does-not-converge``.
        reason: why, in words.
        total_time_ms: from start to end; null when it does not converge.
        downtime_ms: how long the guest is stopped; null likewise.
        profile: whose rules were followed.
        inputs: the parameters in force.
        guest: what was migrated.
        rounds: in order.
        totals: over all rounds.
        query_migrate: the object that QEMU would print.
        assumptions: what the numbers rest on, in words.
    """

    schema: Literal["kvmenc.plan/1"] = "kvmenc.plan/1"
    verdict: Verdict
    reason: str
    total_time_ms: float | None
    downtime_ms: float | None
    profile: str
    inputs: Inputs
    guest: Guest
    rounds: tuple[PlannedRound, ...]
    totals: Totals
    query_migrate: QueryMigrate
    assumptions: tuple[str, ...]
