"""Pages on their way: headers and contents, and the struct that points at both of one."""

from __future__ import annotations

import ctypes

import numpy as np

from kvmenc import uapi

__all__ = ["PAGE_BYTES", "Packet", "PacketRows", "Place"]

PAGE_BYTES = 4096


class Place:
    """Where one page's header and contents are, for one command after the other.

    Args:
        hdr_len: bytes of a header, as the firmware says.
        trans_len: bytes of contents.

    Attributes:
        arg: struct kvm_sev_send_update_data, which kvm_sev_receive_update_data equals.
    """

    def __init__(self, hdr_len: int, trans_len: int) -> None:
        self.arg = uapi.kvm_sev_send_update_data(hdr_len=hdr_len, trans_len=trans_len)

    def at(self, address: int, size: int = PAGE_BYTES) -> uapi.kvm_sev_send_update_data:
        """The struct, for guest memory at ``address``: within a page, multiples of 16."""
        self.arg.guest_uaddr, self.arg.guest_len = address, size
        return self.arg


class PacketRows(Place):
    """Room for some pages, a row each, which need not be copied out one by one.

    Args:
        hdr_len: bytes of a header, as the firmware says.
        trans_len: bytes of contents.
        count: how many.

    Attributes:
        headers: of shape (count, hdr_len).
        contents: of shape (count, trans_len).
    """

    def __init__(self, hdr_len: int, trans_len: int, count: int) -> None:
        super().__init__(hdr_len, trans_len)
        self.headers = np.zeros((count, hdr_len), np.uint8)
        self.contents = np.zeros((count, trans_len), np.uint8)
        self._at = self.headers.ctypes.data, self.contents.ctypes.data

    def turn_to(self, row: int) -> None:
        """The next command's page has this row."""
        arg, (headers, contents) = self.arg, self._at
        arg.hdr_uaddr = headers + row * arg.hdr_len
        arg.trans_uaddr = contents + row * arg.trans_len


class Packet(Place):
    """Room for one page, made once and used again for other pages.

    Args:
        hdr_len: bytes of a header, as the firmware says.
        trans_len: bytes of contents.
    """

    def __init__(self, hdr_len: int, trans_len: int = PAGE_BYTES) -> None:
        super().__init__(hdr_len, trans_len)
        self._hdr = ctypes.create_string_buffer(hdr_len)
        self._trans = ctypes.create_string_buffer(trans_len)
        # Both buffers live as long as the struct: all three are here.
        self.arg.hdr_uaddr = ctypes.addressof(self._hdr)
        self.arg.trans_uaddr = ctypes.addressof(self._trans)

    @property
    def header(self) -> bytes:
        """The header's bytes."""
        return self._hdr.raw

    @property
    def contents(self) -> bytes:
        """The encrypted bytes."""
        return self._trans.raw

    def fill(self, header: bytes, contents: bytes) -> None:
        """Put in what came over the wire; lengths must fit."""
        self._hdr.raw = header
        self._trans.raw = contents
