"""What a capture file says, apart from its bitmaps: one object of schema ``kvmenc.capture/1``.

Types and bounds of single fields are declared here; what fields must be to each other is in
:mod:`kvmenc.capture.faults`.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

__all__ = [
    "SCHEMA",
    "BitmapKind",
    "BlockFacts",
    "Capture",
    "Costs",
    "CurvePoint",
    "DeviceCurve",
    "DevicePoint",
    "EndedBy",
    "How",
    "Provenance",
    "SegmentFacts",
    "SlotFacts",
    "SyncSample",
    "Window",
    "WindowPoint",
]

SCHEMA: Final = "kvmenc.capture/1"

#: ``dirty``: pages written at least once within the capture. ``private``, ``zero``: at the last
#: look; zero pages are shared pages that hold only zeros.
BitmapKind = Literal["dirty", "private", "zero"]

#: Why a window has no more points: its time was over; someone else took dirty bits; dirty logging
#: was switched off; memslots came or went; the VM ended; whoever watched was told to stop.
EndedBy = Literal[
    "time", "another-reader", "log-stopped", "layout-changed", "vm-gone", "interrupted"
]

#: How dirty pages were learnt: by taking them from KVM's log; by reading the log without taking
#: from it; from QEMU's calc-dirty-rate.
How = Literal["sync", "peek", "calc-dirty-rate"]

Pages = Annotated[int, Meta(ge=0, le=2**52)]
SomePages = Annotated[int, Meta(ge=1, le=2**52)]
Milliseconds = Annotated[float, Meta(ge=0, le=1e12)]
Microseconds = Annotated[float, Meta(ge=0, le=1e15)]
# Linux v6.12, virt/kvm/kvm_main.c, __kvm_set_memory_region: id and address space are 16 bits each.
HalfWord = Annotated[int, Meta(ge=0, lt=2**16)]
Name = Annotated[str, Meta(min_length=1, max_length=255)]
Sentence = Annotated[str, Meta(max_length=1000)]
EachBlock = Annotated[tuple[Pages, ...], Meta(max_length=4096)]


class SegmentFacts(Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """A stretch of a RAMBlock at the last look, in pages; in JSON a row of five numbers.

    Attributes:
        npages: its size.
        private_pages: of these private.
        zero_pages: shared pages that hold only zeros; 0 where nobody looked.
        dirty_private_pages: private pages written within the capture's last window.
        dirty_shared_pages: likewise shared.
    """

    npages: SomePages
    private_pages: Pages
    zero_pages: Pages
    dirty_private_pages: Pages
    dirty_shared_pages: Pages


class BlockFacts(Struct, frozen=True, forbid_unknown_fields=True):
    """One RAMBlock at the last look, in pages.

    Attributes:
        name: the RAMBlock's name, as migration sends it.
        npages: pages in the block.
        private_pages: of these private; the rest is shared.
        zero_pages: shared pages that hold only zeros; null when their content was not looked at.
        unlogged_pages: pages in no memslot with a dirty log; their writes are not in the curve.
        zero_low_pages: with ``zero_high_pages`` where the zero pages are with 95 % confidence, when
            they were estimated from a sample; null when they were counted.
        zero_high_pages: see ``zero_low_pages``.
        segments: where in it such pages are, from its start to its end; empty where it is not
            known.
    """

    name: Name
    npages: SomePages
    private_pages: Pages
    zero_pages: Pages | None
    unlogged_pages: Pages
    zero_low_pages: Pages | None = None
    zero_high_pages: Pages | None = None
    segments: Annotated[tuple[SegmentFacts, ...], Meta(max_length=64)] = ()


class SlotFacts(Struct, frozen=True, forbid_unknown_fields=True):
    """A run of pages of one memslot and one RAMBlock; nearly always a whole memslot.

    Attributes:
        as_id: the number of the address space; 1 is what the guest sees in system management mode.
        slot_id: KVM's number, without the address space; null where nobody told.
        base_gfn: first gfn.
        npages: size.
        block: name of the RAMBlock.
        block_page: number of its page at the first gfn, from 0.
        readonly: ROM to KVM.
        log_dirty: KVM logged writes while the capture ran; null where nobody told.
    """

    as_id: HalfWord
    slot_id: HalfWord | None
    base_gfn: Pages
    npages: SomePages
    block: Name
    block_page: Pages
    readonly: bool
    log_dirty: bool | None


class CurvePoint(Struct, frozen=True, forbid_unknown_fields=True):
    """Distinct pages written at least once in any stretch of ``ms`` milliseconds, by class.

    A page that was written, flipped and was written again may count in both.

    Attributes:
        ms: length of the stretch.
        private_pages: written pages that are private, of all RAMBlocks.
        shared_pages: likewise shared.
        error_ms: how wrong ``ms`` may be, either way.
    """

    ms: Milliseconds
    private_pages: Pages
    shared_pages: Pages
    error_ms: Milliseconds = 0.0


class WindowPoint(Struct, frozen=True, forbid_unknown_fields=True):
    """Distinct pages written since the window's t = 0, by the class they had at this look.

    Attributes:
        ms: since t = 0.
        error_ms: how wrong ``ms`` may be, either way.
        private_pages: by RAMBlock, in the order of ``Capture.blocks``.
        shared_pages: likewise.
    """

    ms: Milliseconds
    error_ms: Milliseconds
    private_pages: EachBlock
    shared_pages: EachBlock


class Window(Struct, frozen=True, forbid_unknown_fields=True):
    """A stretch of watching from one t = 0, at which every dirty bit was clear.

    Attributes:
        start_ms: when t = 0 was, since the capture began.
        start_error_ms: how wrong that may be, either way.
        ended_by: why it has no more points.
        points: of growing ``ms``; (0 ms, 0 pages) is implied.
    """

    start_ms: Milliseconds
    start_error_ms: Milliseconds
    ended_by: EndedBy
    points: Annotated[tuple[WindowPoint, ...], Meta(min_length=1, max_length=100_000)]


class DevicePoint(Struct, frozen=True, forbid_unknown_fields=True):
    """An estimate of the pages that only devices wrote: changed, while the dirty bit stayed clear.

    May fall: a page that a vCPU writes later is a vCPU's from then on.

    Attributes:
        ms: since the device curve's own t = 0.
        pages: by RAMBlock, in the order of ``Capture.blocks``.
        low_pages: least that the sum of ``pages`` is, with the curve's confidence.
        high_pages: most that it is.
    """

    ms: Milliseconds
    pages: EachBlock
    low_pages: Pages
    high_pages: Pages


class DeviceCurve(Struct, frozen=True, forbid_unknown_fields=True):
    """What devices wrote, found by comparing the contents of a sample of pages.

    Attributes:
        points: of growing ``ms``.
        confidence: the share of each point's bounds that hold, such as 0.95.
        sampled_pages: how many pages were compared.
        population_pages: of how many pages they were drawn.
    """

    points: Annotated[tuple[DevicePoint, ...], Meta(min_length=1, max_length=100_000)]
    confidence: Annotated[float, Meta(gt=0, lt=1)]
    sampled_pages: Pages
    population_pages: Pages


class SyncSample(Struct, frozen=True, forbid_unknown_fields=True):
    """One sync as it was read.

    Attributes:
        t_ms: when, since the capture began.
        ms: since the sync before.
        dirty_private_pages: pages written since the sync before that are private now.
        dirty_shared_pages: likewise shared.
        flipped_pages: pages that changed between private and shared since the sync before.
    """

    t_ms: Milliseconds
    ms: Milliseconds
    dirty_private_pages: Pages
    dirty_shared_pages: Pages
    flipped_pages: Pages


class Costs(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What looking cost the guest; null where it was not measured.

    Attributes:
        log_start_ms: how long QEMU answered nobody while dirty logging was switched on.
        log_start_ms_per_gib: the same per GiB of guest memory.
        stop_count: how often a thread of the target was stopped.
        stop_median_us: how long it stood still, the median of all stops.
        stop_p99_us: 99 % of the stops were shorter.
        stop_max_us: the longest.
    """

    log_start_ms: Milliseconds | None = None
    log_start_ms_per_gib: Milliseconds | None = None
    stop_count: Annotated[int, Meta(ge=0, le=2**52)] | None = None
    stop_median_us: Microseconds | None = None
    stop_p99_us: Microseconds | None = None
    stop_max_us: Microseconds | None = None


class Provenance(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where, when and how a capture was made.

    Attributes:
        captured_at: when it ended, in UTC, such as ``2026-11-23T18:00:00Z``.
        kvmenc_version: of the kvmenc that made it.
        how: how dirty pages were learnt.
        kernel: release of the host's kernel; null where it was not asked.
        qemu: version of QEMU; null where there was none.
        machine: QEMU's machine type.
        vm_kind: what kind of VM: plain, or of which encryption.
    """

    captured_at: Annotated[
        str, Meta(pattern=r"^[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-6][0-9]Z\Z")
    ]
    kvmenc_version: Name
    how: How
    kernel: Name | None = None
    qemu: Name | None = None
    machine: Name | None = None
    vm_kind: Name | None = None


class Capture(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Everything known of a guest, but for its bitmaps.

    Attributes:
        schema: ``kvmenc.capture/1``.
        source: what was looked at, in words.
        private_source: where private/shared came from, in words.
        private_reason: why from there, in words; may be empty.
        holds: which writes the curve holds. ``vcpu``: writes by vCPUs; KVM's dirty log never sees
            those of devices.
        page_size: bytes in a page.
        blocks: the RAMBlocks, in the order in which migration sends them.
        curve: points of growing ``ms``; (0 ms, 0 pages) is implied. Where there are windows, what
            :func:`~kvmenc.capture.curve_of` makes of them.
        samples: the syncs behind the curve, oldest first.
        slots: where the RAMBlocks lay in the guest; empty where it was not known.
        windows: the readings behind the curve, oldest first; empty where there is only the curve.
        device: what devices wrote; null where it was not looked for.
        costs: what looking cost the guest.
        provenance: where, when and how.
        notes: what a reader should know, a sentence each.
    """

    schema: Literal["kvmenc.capture/1"] = SCHEMA
    source: Name
    private_source: Name
    private_reason: Sentence = ""
    holds: Literal["vcpu"] = "vcpu"
    page_size: Annotated[int, Meta(ge=4096, le=2**20)] = 4096
    blocks: Annotated[tuple[BlockFacts, ...], Meta(min_length=1, max_length=4096)]
    curve: Annotated[tuple[CurvePoint, ...], Meta(min_length=1, max_length=100_000)]
    samples: Annotated[tuple[SyncSample, ...], Meta(max_length=100_000)] = ()
    slots: Annotated[tuple[SlotFacts, ...], Meta(max_length=100_000)] = ()
    windows: Annotated[tuple[Window, ...], Meta(max_length=2_000)] = ()
    device: DeviceCurve | None = None
    costs: Costs | None = None
    provenance: Provenance | None = None
    notes: Annotated[tuple[Sentence, ...], Meta(max_length=100)] = ()

    @property
    def npages(self) -> int:
        """Pages in all blocks."""
        return sum(block.npages for block in self.blocks)

    @property
    def private_pages(self) -> int:
        """Private pages in all blocks."""
        return sum(block.private_pages for block in self.blocks)
