"""What it costs to send a page, by road.

Bytes on the wire, with the 8-byte page header that every record has (QEMU 10.0, migration/ram.c,
``save_page_header``, ``ram_save_zero_page``, ``save_normal_page``):

=========  ==================================================================
normal     8 + page
zero       8 + 1; only shared pages can be found to be zero
encrypted  8 + 4 subtype + 4 + 52 firmware header + 4 + page, each length a be32
           (openEuler qemu-8.2.0, target/i386/sev.c; the header is AMD's ``sev_hdr_buf``:
           flags 4, iv 16, mac 32)
=========  ==================================================================

The first page of a block also carries the block's name: 1 + its length.

The firmware encrypts one page per SEND_UPDATE_DATA, one command at a time on the whole host (Linux
v6.12, arch/x86/kvm/svm/sev.c, ``sev_send_update_data``), and QEMU waits for it before it sends:
firmware and network are in series.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kvmenc.capture import BlockFacts

__all__ = ["DEFAULT_PRIVATE_RATE_PPS", "ByRoad", "RoadCosts", "block_name_bytes"]

#: Pages per second that AMD's firmware sends: "between 350-450" in A. Kalra, "migration: for SEV
#: live migration bump downtime limit to 1s", AMDESE/qemu 119bb3f02c.
DEFAULT_PRIVATE_RATE_PPS = 400.0

_PAGE_HEADER_BYTES = 8
_ENCRYPTED_BYTES = 4 + 4 + 52 + 4


class ByRoad(NamedTuple):
    """One number for each road."""

    normal: float = 0.0
    zero: float = 0.0
    encrypted: float = 0.0

    def scaled(self, factor: float) -> ByRoad:
        """Each times ``factor``."""
        return ByRoad(self.normal * factor, self.zero * factor, self.encrypted * factor)

    def times(self, other: ByRoad) -> ByRoad:
        """Road by road."""
        return ByRoad(
            self.normal * other.normal, self.zero * other.zero, self.encrypted * other.encrypted
        )

    def plus(self, other: ByRoad) -> ByRoad:
        """Road by road."""
        return ByRoad(
            self.normal + other.normal, self.zero + other.zero, self.encrypted + other.encrypted
        )


class RoadCosts:
    """What a page costs on each road.

    Attributes:
        page_size: bytes in a page.
        bytes_per_page: on the wire, block names not counted.
        firmware_ms_per_page: in the firmware.
        ms_per_page: from taking it up to having it on the wire: firmware, then network.
    """

    def __init__(self, page_size: int, link_bytes_per_s: float, private_rate_pps: float) -> None:
        self.page_size = page_size
        self.bytes_per_page = ByRoad(
            normal=_PAGE_HEADER_BYTES + page_size,
            zero=_PAGE_HEADER_BYTES + 1,
            encrypted=_PAGE_HEADER_BYTES + _ENCRYPTED_BYTES + page_size,
        )
        self.firmware_ms_per_page = ByRoad(encrypted=1000 / private_rate_pps)
        wire_ms = self.bytes_per_page.scaled(1000 / link_bytes_per_s)
        self.ms_per_page = wire_ms.plus(self.firmware_ms_per_page)

    def wire_bytes(self, pages: ByRoad) -> float:
        """Bytes on the wire, block names not counted."""
        each = self.bytes_per_page
        return pages[0] * each[0] + pages[1] * each[1] + pages[2] * each[2]

    def ms(self, pages: ByRoad) -> float:
        """Time to send pages one after another."""
        each = self.ms_per_page
        return pages[0] * each[0] + pages[1] * each[1] + pages[2] * each[2]


def block_name_bytes(blocks: Iterable[BlockFacts]) -> ByRoad:
    """What the first page of each block carries more than the others, once over all RAM.

    The first page is taken to go the road of most of its block.
    """
    normal = encrypted = 0
    for block in blocks:
        size = 1 + len(block.name.encode())
        if block.private_pages * 2 > block.npages:
            encrypted += size
        else:
            normal += size
    return ByRoad(normal=normal, encrypted=encrypted)
