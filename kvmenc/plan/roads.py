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

With multifd a shared page is 8 bytes of offset and the page, and each packet of 128 has 320 bytes
more (migration/multifd.h, ``MultiFDPacket_t``). A page that xbzrle still knows is 8 + 1 + 2 and its
difference (migration/ram.c, ``save_xbzrle_page``). Private pages get none of that.

The first page of a block also carries the block's name: 1 + its length.

The firmware encrypts one page per SEND_UPDATE_DATA, one command at a time on the whole host (Linux
v6.12, arch/x86/kvm/svm/sev.c, ``sev_send_update_data``), and QEMU waits for it before it sends:
firmware and network are in series.

To QEMU a page is sent when the kernel has it. A connection's send buffer is full while the network
is what limits, and empties while QEMU waits for the next window.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from kvmenc.capture import BlockFacts
    from kvmenc.plan.parameters import Parameters
    from kvmenc.plan.profile import Profile

__all__ = ["DEFAULT_PRIVATE_RATE_PPS", "ByRoad", "RoadCosts", "block_name_bytes", "multifd_share"]

#: Pages per second that AMD's firmware sends: "between 350-450" in A. Kalra, "migration: for SEV
#: live migration bump downtime limit to 1s", AMDESE/qemu 119bb3f02c.
DEFAULT_PRIVATE_RATE_PPS = 400.0

_PAGE_HEADER_BYTES = 8
_ENCRYPTED_BYTES = 4 + 4 + 52 + 4
_XBZRLE_BYTES = 1 + 2
_ZERO_BYTES = 1
#: An offset of 8 bytes, and its part of a packet's 320 bytes of header.
_MULTIFD_BYTES = 8 + 320 / 128
#: Pages of a packet, and the bytes before them, of the one too with which connections wait for
#: each other.
_PACKET_PAGES = 128
_PACKET_BYTES = 320 + _PACKET_PAGES * 8
#: Of packets given to a connection and not sent yet, when the limit is looked at: measured on QEMU
#: 10.0, 2 and 4 connections at 6 to 40 MB/s.
_QUEUED = 0.7
#: In the stream, where connections wait for each other once in a round.
_FLUSH_BYTES = 8
#: Of a zero page all is read before that is known: measured on QEMU 7.2, 42,000 pages in 28 ms.
_ZERO_CHECK_MS = 0.0007
#: The least that one thread of QEMU writes into a buffer with room: measured on a slow machine.
_MEMORY_BYTES_PER_MS = 1e6


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
        bytes_per_page: on the wire when first sent, block names not counted.
        firmware_ms_per_page: in the firmware.
        ms_per_page: from taking it up to having it sent, while the guest runs: firmware, then
            network.
        window_bytes: as many may be sent in a window.
        call_bytes: each call to send pages adds.
        round_bytes: each time over all RAM adds.
    """

    def __init__(self, page_size: int, parameters: Parameters, profile: Profile) -> None:
        self.page_size, self._xbzrle = page_size, parameters.xbzrle
        self.bytes_per_page = _bytes_per_page(page_size, parameters, profile)
        self.firmware_ms_per_page = ByRoad(encrypted=1000 / parameters.private_rate_pps)
        self._link_bytes_per_ms = parameters.link / 1000
        self._buffer_bytes = parameters.send_buffer_bytes
        window_bytes = parameters.live_bytes_per_s * profile.window_ms / 1000
        quiet_ms = profile.window_ms - window_bytes / self._link_bytes_per_ms
        self._live_ms_per_byte = self._wire_ms(window_bytes, quiet_ms) / window_bytes
        self.ms_per_page = self._live_ms(self.bytes_per_page)
        self.window_bytes = _window_bytes(parameters, profile)
        self.call_bytes, self.round_bytes = _between_pages(parameters, profile)

    def _wire_ms(self, size: float, quiet_ms: float) -> float:
        """Until so many bytes, offered at once, are sent, as QEMU sees it."""
        memory = max(_MEMORY_BYTES_PER_MS, self._link_bytes_per_ms)
        room_bytes = min(self._buffer_bytes, quiet_ms * self._link_bytes_per_ms)
        at_once = min(size, room_bytes)
        return at_once / memory + (size - at_once) / self._link_bytes_per_ms

    def _live_ms(self, bytes_per_page: ByRoad) -> ByRoad:
        wire_ms = bytes_per_page.scaled(self._live_ms_per_byte)
        wire_ms = wire_ms._replace(zero=max(wire_ms.zero, _ZERO_CHECK_MS))
        return wire_ms.plus(self.firmware_ms_per_page)

    def bytes_again(self, known: float) -> ByRoad:
        """Bytes of a page of each road, where xbzrle knows a share of the normal ones."""
        size = self.bytes_per_page
        if not self._xbzrle or not known:
            return size
        short = _PAGE_HEADER_BYTES + _XBZRLE_BYTES + self._xbzrle.encoded_share * self.page_size
        return size._replace(normal=known * short + (1 - known) * size.normal)

    def prices(self, size: ByRoad) -> NDArray[np.float64]:
        """ms, bytes and pages (rows) of a page of each road (columns), while the guest runs."""
        return np.array([self._live_ms(size), size, (1.0, 1.0, 1.0)])

    def known_share(self, pages: float, sent_again: float) -> float:
        """Which share of pages xbzrle knows.

        It knows a page from the second time on that it is sent again, as long as that has a place
        of its own in the cache.

        Args:
            pages: pending.
            sent_again: so many were sent since all RAM was sent once.
        """
        if not self._xbzrle or not pages:
            return 0.0
        places = self._xbzrle.cache_bytes / self.page_size
        return min(1.0, places / pages) * min(1.0, sent_again / pages)

    def stopped_ms(self, size: float, encrypted_pages: float, quiet_ms: float) -> float:
        """Until all is sent, with no limit but firmware and network.

        Args:
            size: bytes.
            encrypted_pages: of these in private pages.
            quiet_ms: for so long nothing was sent before, and the send buffer became emptier.
        """
        firmware_ms = encrypted_pages * self.firmware_ms_per_page.encrypted
        return firmware_ms + self._wire_ms(size, quiet_ms)


def _window_bytes(parameters: Parameters, profile: Profile) -> float:
    """The limit is checked when a lot was sent, and must be exceeded.

    With multifd a lot is a packet of pages; its connections send on what they have been given.
    """
    limit = parameters.max_bandwidth_bytes_per_s * profile.window_ms / 1000
    if not parameters.multifd_channels:
        return (limit // profile.flush_bytes + 1) * profile.flush_bytes
    lot = _PACKET_PAGES * 4096 + _PACKET_BYTES
    queued = 0 if profile.multifd_syncs_calls else parameters.multifd_channels * _QUEUED * lot
    return (limit // lot + 1) * lot + queued


def _between_pages(parameters: Parameters, profile: Profile) -> tuple[int, int]:
    """Bytes that each call, and each time over all RAM, adds to those of the pages."""
    together = _together_bytes(parameters)
    if profile.multifd_syncs_calls:
        return profile.call_bytes + together, 0
    return profile.call_bytes, together and together + _FLUSH_BYTES


def _together_bytes(parameters: Parameters) -> int:
    """What brings multifd's connections together: a packet on each, after one that is not full."""
    channels = parameters.multifd_channels
    return (channels + 1) * _PACKET_BYTES if channels else 0


def multifd_share(parameters: Parameters, profile: Profile) -> float:
    """Of the bytes that are not pages', about how many go over multifd's connections."""
    together = _together_bytes(parameters)
    own = profile.call_bytes if profile.multifd_syncs_calls else _FLUSH_BYTES
    return together / (together + own)


def _bytes_per_page(page_size: int, parameters: Parameters, profile: Profile) -> ByRoad:
    page = ByRoad(
        normal=_PAGE_HEADER_BYTES + page_size,
        zero=_PAGE_HEADER_BYTES + _ZERO_BYTES,
        encrypted=_PAGE_HEADER_BYTES + _ENCRYPTED_BYTES + page_size,
    )
    if not parameters.multifd_channels:
        return page
    zero = _MULTIFD_BYTES if profile.multifd_zero_pages else page.zero
    return page._replace(normal=_MULTIFD_BYTES + page_size, zero=zero)


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
