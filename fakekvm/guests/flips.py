"""Guests that make pages shared and private, in the orders in which Linux and OVMF do.

Sources, all Linux v6.12 unless said otherwise:
arch/x86/mm/pat/set_memory.c, __set_memory_enc_pgtable: page table, then hypercall, no content;
arch/x86/mm/mem_encrypt_amd.c, enc_dec_hypercall: one hypercall for each page-table entry;
early_set_memory_enc_dec: content converted in place, then page table, then hypercall;
arch/x86/kernel/kvm.c, kvm_init_platform, sev_map_percpu_data; arch/x86/mm/mem_encrypt.c,
mem_encrypt_setup_arch: the SWIOTLB is 6 % of memory, 64 MiB to 1 GiB; kernel/dma/swiotlb.c,
swiotlb_update_mem_attributes; kernel/dma/pool.c, dma_atomic_pool_init; kernel/dma/direct.c;
edk2, OvmfPkg/IoMmuDxe/CcIoMmu.c: mapping a buffer makes it shared and fills it, unmapping makes it
private and zeroes it.
How many: booting one guest made 19,479 such hypercalls, about 18,000 of OVMF, 1,300 of Linux
(Ashish Kalra, kvm list, February 2021). Linux's follow from the sources above, but for the buffers
of drivers, which make up what is missing in a guest of 4 GiB and 4 vCPUs.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fakekvm.guests.steps import Flip, WritePages

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fakekvm.guests.steps import Step

__all__ = [
    "OVMF_CONVERSIONS",
    "boot_flips",
    "firmware_flips",
    "flip_then_write",
    "linux_flips",
    "reboot_flips",
    "swiotlb_churn",
    "write_then_flip",
]

OVMF_CONVERSIONS = 9090
"""Buffers that OVMF maps and unmaps in one boot: two announcements each."""

_2_MIB, _GIB = 512, 1 << 18  # in pages
_4_GIB = 4 * _GIB
_BSS_DECRYPTED, _BSS_USED = 512, 2  # hv_clock_boot, wall_clock, boot_ghcb_page
_CALLS_PER_CPU = 3  # apf_reason, steal_time, kvm_apic_eoi lie in one page
_DRIVER_PAGES = 267
_POISON = 0xCCCCCCCCCCCCCCCC  # POISON_FREE_INITMEM
_FIRMWARE_PAGES = 16 << 8


def flip_then_write(gfns: range, rng: np.random.Generator, run_pages: int = 16) -> Iterator[Step]:
    """Announces a change of a run of pages, then writes them: how set_memory_decrypted() is used.

    Source: Linux v6.12, arch/x86/mm/pat/set_memory.c, __set_memory_enc_pgtable.
    """
    for flip, write in _conversions(gfns, rng, run_pages):
        yield flip
        yield write


def write_then_flip(gfns: range, rng: np.random.Generator, run_pages: int = 16) -> Iterator[Step]:
    """Converts the content of a run of pages in place, and announces the change only then.

    Source: Linux v6.12, arch/x86/mm/mem_encrypt_amd.c, early_set_memory_enc_dec.
    """
    for flip, write in _conversions(gfns, rng, run_pages):
        yield write
        yield flip


def _conversions(
    gfns: range, rng: np.random.Generator, run_pages: int
) -> Iterator[tuple[Flip, WritePages]]:
    """Runs of ``gfns`` picked at random, which change to shared, back to private, ..."""
    private = np.ones(-(-len(gfns) // run_pages), np.bool_)
    for value in itertools.count(1):
        at = int(rng.integers(private.size))
        private[at] = not private[at]
        run = gfns[at * run_pages : (at + 1) * run_pages]
        yield Flip(run.start, len(run), bool(private[at])), WritePages(run, value)


def swiotlb_churn(gfns: range, rng: np.random.Generator, most_pages: int = 8) -> Iterator[Step]:
    """Small buffers for devices come and go, for ever, and are used in between.

    A new one is made shared and zeroed, as dma_direct_alloc() does; used, it is written; freed, it
    is made private, and what gets its pages next writes them. ``gfns`` start as private.

    Args:
        gfns: where the buffers lie.
        rng: picks them, their sizes and what becomes of them.
        most_pages: the largest has so many.
    """
    buffers: dict[int, range] = {}
    cells = -(-len(gfns) // most_pages)
    for value in itertools.count(1):
        cell = int(rng.integers(cells))
        room = gfns[cell * most_pages : (cell + 1) * most_pages]
        if cell not in buffers:
            buffers[cell] = buffer = room[: int(rng.integers(1, len(room) + 1))]
            yield Flip(buffer.start, len(buffer), private=False)
            yield WritePages(buffer, 0)
        elif rng.random() < 0.5:
            yield WritePages(buffers[cell], value)
        else:
            freed = buffers.pop(cell)
            yield Flip(freed.start, len(freed), private=True)
            yield WritePages(freed, value)


def firmware_flips(
    gfns: range, rng: np.random.Generator, conversions: int = OVMF_CONVERSIONS
) -> Iterator[Step]:
    """What OVMF does: maps a buffer of 1 to 4 pages for a device, unmaps it, the next.

    Both times the announcement comes first. At the end all is private again.
    """
    sizes = np.minimum(rng.integers(1, 5, size=conversions), len(gfns))
    firsts = gfns.start + rng.integers(len(gfns) - sizes + 1)
    for value, (first, size) in enumerate(zip(firsts.tolist(), sizes.tolist(), strict=True), 1):
        for private in (False, True):
            yield Flip(first, size, private)
            yield WritePages(range(first, first + size), 0 if private else value)


def linux_flips(ram: Sequence[range], rng: np.random.Generator, cpus: int = 4) -> Iterator[Step]:
    """What Linux does at boot, in its order; of ``ram`` all that is not named here is private.

    Args:
        ram: the entries of the E820 map, as ranges of gfns.
        rng: where the kernel lies (KASLR), and sizes of drivers' buffers.
        cpus: that are possible; not only those that are there.
    """
    pieces = _carve(ram, rng, cpus)
    bss = pieces.bss
    # .bss..decrypted is shared in the page table, and used, long before that is announced.
    yield from _write(bss, 0)
    for area in ram:
        yield from _announce(area, len(area), private=True)
    yield from _announce(bss, len(bss), private=False)
    for gfn in pieces.per_cpu:  # in place, one page each, announced once for each variable in it
        yield WritePages(range(gfn, gfn + 1), 0)
        yield from [Flip(gfn, 1, private=False)] * _CALLS_PER_CPU
    yield from _announce(pieces.swiotlb, _2_MIB, private=False)  # zeroed before, never after
    yield from _announce(pieces.pools, 1, private=False)
    yield from _driver_buffers(pieces.drivers, rng)
    # mem_encrypt_free_decrypted_mem(): the rest is given back, and poisoned after that.
    unused = bss[_BSS_USED:]
    yield from _announce(unused, 1, private=True)
    yield from _write(unused, _POISON)


def boot_flips(
    ram: Sequence[range],
    rng: np.random.Generator,
    cpus: int = 4,
    firmware_conversions: int = OVMF_CONVERSIONS,
) -> Iterator[Step]:
    """A boot by OVMF, then Linux: about 19,500 announcements.

    Args:
        ram: the entries of the E820 map, as ranges of gfns; small memory gets smaller pieces.
        rng: determines everything else.
        cpus: that are possible.
        firmware_conversions: buffers that the firmware maps; 0: there is no firmware.
    """
    firmware = _carve(ram, np.random.default_rng(0), cpus).firmware
    if firmware:
        yield from firmware_flips(firmware, rng, firmware_conversions)
    yield from linux_flips(ram, rng, cpus)


def reboot_flips(
    ram: Sequence[range], rng: np.random.Generator, cpus: int = 4, firmware_conversions: int = 0
) -> Iterator[Step]:
    """A boot after one that left its buffers shared: nothing is announced when a system goes down.

    So to the new kernel these pages are private from the start, and it may write them (its image,
    page tables) before it announces all memory as private: written, and announced afterwards, from
    shared to private. Source: Linux v6.12, arch/x86/kernel/kvm.c, kvm_init_platform ("Reset the
    host's shared pages list ... before we load a new kernel by kexec") and kvm_pv_reboot_notify.

    Args:
        ram: as for the boot before.
        rng: determines everything else.
        cpus: as for the boot before.
        firmware_conversions: 0: by kexec, which does without firmware.
    """
    pieces = _carve(ram, np.random.default_rng(0), cpus)
    if pieces.firmware:
        yield from firmware_flips(pieces.firmware, rng, firmware_conversions)
    image = max(len(pieces.swiotlb) // 8, 1)
    yield from _write(pieces.swiotlb[:image], int(rng.integers(1 << 62)))
    yield from linux_flips(ram, rng, cpus)


@dataclass(frozen=True, slots=True)
class _Pieces:
    """Where things lie: all in memory below 4 GiB, none over another."""

    per_cpu: range
    firmware: range
    swiotlb: range
    pools: range
    drivers: range
    bss: range


def _carve(ram: Sequence[range], rng: np.random.Generator, cpus: int) -> _Pieces:
    """Pieces from the top down, the kernel anywhere below them; none gets over half of the rest."""
    npages = sum(len(area) for area in ram)
    low = max(
        (range(area.start, min(area.stop, _4_GIB)) for area in ram), key=len, default=range(0)
    )
    swiotlb = min(max(npages * 6 // 100, 64 << 8), _GIB)
    pool = min(max(npages // (1 << 13), 32), 1024)  # 128 KiB for each GiB, up to 4 MiB
    wanted = (cpus, _FIRMWARE_PAGES, -(-swiotlb // _2_MIB) * _2_MIB, 3 * pool, _DRIVER_PAGES)
    taken: list[range] = []
    for pages in wanted:
        at = max(len(low) - pages, (len(low) + 1) // 2)
        taken.append(low[at:])
        low = low[:at]
    per_cpu, firmware, bounce, pools, drivers = taken
    return _Pieces(per_cpu, firmware, bounce, pools, drivers, _kernel_piece(low, rng))


def _kernel_piece(low: range, rng: np.random.Generator) -> range:
    """.bss..decrypted, at a multiple of 2 MiB where that fits."""
    first = -(-low.start // _2_MIB)
    count = low.stop // _2_MIB - first
    if count < 1:
        return low[:_BSS_DECRYPTED]
    start = (first + int(rng.integers(count))) * _2_MIB
    return range(start, start + _BSS_DECRYPTED)


def _announce(pages: range, chunk: int, *, private: bool) -> Iterator[Flip]:
    for first in range(0, len(pages), max(chunk, 1)):
        run = pages[first : first + chunk]
        yield Flip(run.start, len(run), private)


def _write(pages: range, value: int) -> Iterator[WritePages]:
    if pages:
        yield WritePages(pages, value)


def _driver_buffers(pages: range, rng: np.random.Generator) -> Iterator[Step]:
    """dma_direct_alloc(): made shared, page by page, and zeroed at once."""
    while pages:
        buffer = pages[: 1 << int(rng.integers(3))]
        yield from _announce(buffer, 1, private=False)
        yield WritePages(buffer, 0)
        pages = pages[len(buffer) :]
