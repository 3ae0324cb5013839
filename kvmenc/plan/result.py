"""A plan as data: what ``kvmenc plan --json`` prints, schema ``kvmenc.plan/1``."""

from __future__ import annotations

from typing import Literal

from msgspec import UNSET, Struct, UnsetType

__all__ = [
    "Advice",
    "Change",
    "Counts",
    "Guest",
    "Inputs",
    "Interval",
    "Knob",
    "Plan",
    "PlannedRound",
    "Postcopy",
    "QueryMigrate",
    "RamStats",
    "Times",
    "Totals",
    "Tried",
    "Unit",
    "XbzrleCache",
]

Verdict = Literal["converges", "does-not-converge"]
Bottleneck = Literal["network", "firmware"]
#: What can be changed: two parameters of QEMU; the network's speed; the firmware's; how long vCPUs
#: stand still.
Knob = Literal["downtime-limit", "max-bandwidth", "link", "private-rate", "throttle"]
Unit = Literal["ms", "bytes/s", "pps", "%"]
#: Whether postcopy has to be thought of: for encrypted pages nobody has written the receiving side.
Postcopy = Literal["not-needed", "only-way", "no-help", "impossible"]


class Counts(Struct, frozen=True):
    """Whole pages or bytes, by road.

    Attributes:
        normal: pages or bytes sent as they are.
        zero: pages or bytes of pages that hold only zeros.
        encrypted: pages or bytes that went through the firmware.
    """

    normal: int
    zero: int
    encrypted: int

    @property
    def total(self) -> int:
        """Of all roads."""
        return self.normal + self.zero + self.encrypted


class Times(Struct, frozen=True):
    """Milliseconds, by road.

    Attributes:
        normal: ms for pages sent as they are.
        zero: ms for pages that hold only zeros.
        encrypted: ms for pages that went through the firmware.
    """

    normal: float
    zero: float
    encrypted: float


class Guest(Struct, frozen=True):
    """What was migrated in thought.

    Attributes:
        source: what was looked at, in words.
        private_source: where private/shared came from, in words.
        holds: which writes its curve holds.
        page_size: in bytes.
        pages: of all RAMBlocks.
        private_pages: of these private.
        zero_pages: shared pages that hold only zeros; null when nobody looked for them.
        unlogged_pages: in no memslot with a dirty log: whether they are written is not known.
        device_pages: found written by devices only; null when nobody looked for them.
    """

    source: str
    private_source: str
    holds: str
    page_size: int
    pages: int
    private_pages: int
    zero_pages: int | None
    unlogged_pages: int
    device_pages: int | None


class Inputs(Struct, frozen=True):
    """The parameters in force, defaults filled in; no time limit and no xbzrle are null.

    Attributes:
        max_bandwidth_bytes_per_s: QEMU's cap while the guest runs.
        link_bytes_per_s: the network's speed; the stopped guest is sent at it.
        downtime_limit_ms: the pause that QEMU may plan for.
        time_limit_ms: longer than this counts as not converging.
        private_rate_pps: private pages a second through the firmware.
        private_batch_pages: that one command of the firmware takes.
        send_buffer_bytes: that the kernel takes at once after a rest.
        auto_converge: whether QEMU may throttle the guest.
        multifd_channels: how many connections; 0: no multifd.
        xbzrle_encoded_share: a page's size after xbzrle over its size before, 0 to 1.
        xbzrle_cache_bytes: the size of its cache.
        postcopy: whether QEMU may switch to it.
    """

    max_bandwidth_bytes_per_s: float
    link_bytes_per_s: float
    downtime_limit_ms: float
    time_limit_ms: float | None
    private_rate_pps: float
    private_batch_pages: int
    send_buffer_bytes: float
    auto_converge: bool
    multifd_channels: int
    xbzrle_encoded_share: float | None
    xbzrle_cache_bytes: float | None
    postcopy: bool


class PlannedRound(Struct, frozen=True):
    """From one sync to the next.

    Attributes:
        ms: its length, waiting included.
        dirty_pages: pending at its start, after the sync.
        private_pages: of these private.
        pages: sent in it. Pages left over stay pending.
        bytes: on the wire.
        ms_by_road: the time that took, waiting shared out.
        bottleneck: where more than half of the time went.
        stopped: whether the guest was stopped; true of the last round of a migration that ends.
    """

    ms: float
    dirty_pages: int
    private_pages: int
    pages: Counts
    bytes: Counts
    ms_by_road: Times
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
    """The ``ram`` member of query-migrate (QEMU 10.0, qapi/migration.json, MigrationStats).

    Attributes:
        transferred: bytes sent.
        remaining: bytes left to send.
        total: bytes of RAM.
        duplicate: zero pages, each time that one was sent.
        normal: pages sent with content, each time.
        normal_bytes: the same in bytes.
        dirty_pages_rate: pages a second that the guest dirties.
        mbps: 10^6 bits a second.
        dirty_sync_count: how often QEMU synced.
        pages_per_second: sent.
        page_size: bytes in a page.
        precopy_bytes: sent while the guest ran.
        downtime_bytes: sent while it was stopped.
        postcopy_requests: how many pages the destination asked for.
        multifd_bytes: sent by multifd.
        postcopy_bytes: sent once the guest ran at the destination.
        dirty_sync_missed_zero_copy: how many syncs could not make use of zero-copy.
        skipped: pages; always 0.
    """

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
    skipped: int | UnsetType = UNSET


class XbzrleCache(Struct, frozen=True, rename="kebab"):
    """Its ``xbzrle-cache`` member (XBZRLECacheStats); the two rates are of the last second.

    Attributes:
        cache_size: bytes.
        bytes: sent as differences.
        pages: sent as differences.
        cache_miss: how many pages were not in the cache.
        cache_miss_rate: share of pages that were not, 0 to 1.
        encoding_rate: bytes before over bytes after; 0 where it was not measured.
        overflow: how many pages came out larger.
    """

    cache_size: int
    bytes: int
    pages: int
    cache_miss: int
    cache_miss_rate: float
    encoding_rate: float
    overflow: int


class QueryMigrate(Struct, frozen=True, rename="kebab"):
    """What query-migrate would answer at the end, or at giving up (MigrationInfo).

    What a QEMU does not print is left out: ``skipped`` is printed until 8.2, ``xbzrle-cache`` with
    that capability, ``cpu-throttle-percentage`` while it throttles.

    Attributes:
        status: ``completed``, or ``active`` where it was given up.
        ram: of the RAM.
        total_time: ms, setting up included.
        setup_time: ms.
        expected_downtime: ms, by what is left and the bandwidth; only of one that was given up.
        downtime: ms that the guest was stopped; only of one that completed.
        cpu_throttle_percentage: how much of the time vCPUs stand still.
        xbzrle_cache: of xbzrle.
    """

    status: Literal["active", "completed"]
    ram: RamStats
    total_time: int
    setup_time: int = 0
    expected_downtime: int | UnsetType = UNSET
    downtime: int | UnsetType = UNSET
    cpu_throttle_percentage: int | UnsetType = UNSET
    xbzrle_cache: XbzrleCache | UnsetType = UNSET


class Change(Struct, frozen=True, kw_only=True):
    """The least value of one parameter that converges, the others as they are.

    Attributes:
        knob: which parameter.
        unit: of its values.
        now: its value in the plan, in ``unit``; a throttle is 0.
        least: the value, about, in ``unit``; null where none that was looked at converges.
        looked_from: the least value that was looked at, in ``unit``.
        looked_to: the largest, in ``unit``.
        sure: no smaller value that was tried converges, nor does one of 10 % less.
        options: how it is typed for ``kvmenc plan``; null where there is no option, or no value.
        total_time_ms: of the migration with it; null without a value.
        downtime_ms: likewise.
    """

    knob: Knob
    unit: Unit
    now: float
    least: float | None = None
    looked_from: float
    looked_to: float
    sure: bool = False
    options: str | None = None
    total_time_ms: float | None = None
    downtime_ms: float | None = None


class Tried(Struct, frozen=True, kw_only=True):
    """The same migration with one more of QEMU's capabilities.

    Attributes:
        capability: which.
        options: how it is typed for ``kvmenc plan``.
        total_time_ms: null where it does not converge.
        downtime_ms: likewise.
        throttle_percent: how much of the time vCPUs stand still at the end.
    """

    capability: Literal["auto-converge", "postcopy"]
    options: str
    total_time_ms: float | None
    downtime_ms: float | None
    throttle_percent: int


class Advice(Struct, frozen=True, kw_only=True):
    """What would make a migration converge, or how far it is from not converging.

    Attributes:
        kind: ``to-converge``: larger values were looked at; ``margin``: smaller ones.
        changes: each alone.
        capabilities: each alone, of those that are off; none where it converges already.
        postcopy: ``only-way`` where it does, and nothing else; ``no-help`` where nothing does;
            ``impossible`` where nothing does and private pages are there, for which it is not.
    """

    kind: Literal["to-converge", "margin"]
    changes: tuple[Change, ...]
    capabilities: tuple[Tried, ...] = ()
    postcopy: Postcopy


class Interval(Struct, frozen=True, kw_only=True):
    """What the plan would be had the capture seen the guest a little differently.

    Attributes:
        low_ms: nine tenths of such migrations take at least this; null where no plan converges.
        high_ms: and at most this; likewise.
        probability_converges: the share of plans that do.
        knife_edge: it may converge or not.
        basis: ``windows``: of a capture that saw the guest at several moments; ``one-window``: at
            one, so how much the guest itself changes is not known.
        plans: how many.
    """

    low_ms: float | None
    high_ms: float | None
    probability_converges: float
    knife_edge: bool
    basis: Literal["windows", "one-window"]
    plans: int


class Plan(Struct, frozen=True, kw_only=True):
    """What a migration would do.

    Attributes:
        schema: ``kvmenc.plan/1``.
        verdict: ``converges`` or ``does-not-converge``.
        reason: why, in words.
        total_time_ms: from start to end; null when it does not converge.
        downtime_ms: how long the guest is stopped; null likewise.
        profile: whose rules were followed.
        proven: these rules were compared with real runs of that version.
        inputs: the parameters in force.
        guest: what was migrated.
        rounds: in order.
        totals: over all rounds.
        query_migrate: the object that QEMU would print.
        assumptions: what the numbers rest on, in words.
        interval: how much of it is chance; null when that was not asked for, or nothing is known.
        advice: what would make it converge, or its margins; null when that was not asked for.
    """

    schema: Literal["kvmenc.plan/1"] = "kvmenc.plan/1"
    verdict: Verdict
    reason: str
    total_time_ms: float | None
    downtime_ms: float | None
    profile: str
    proven: bool
    inputs: Inputs
    guest: Guest
    rounds: tuple[PlannedRound, ...]
    totals: Totals
    query_migrate: QueryMigrate
    assumptions: tuple[str, ...]
    interval: Interval | None = None
    advice: Advice | None = None
