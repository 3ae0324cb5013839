"""One page on its way: its header and contents, and the struct that points at both."""

from __future__ import annotations

import ctypes

from kvmenc import uapi

__all__ = ["PAGE_BYTES", "Packet"]

PAGE_BYTES = 4096


class Packet:
    """Room for one page, made once and used again for other pages.

    Args:
        hdr_len: bytes of a header, as the firmware says.
        trans_len: bytes of contents.

    Attributes:
        arg: struct kvm_sev_send_update_data, which kvm_sev_receive_update_data equals.
    """

    def __init__(self, hdr_len: int, trans_len: int = PAGE_BYTES) -> None:
        self._hdr = ctypes.create_string_buffer(hdr_len)
        self._trans = ctypes.create_string_buffer(trans_len)
        self.arg = uapi.kvm_sev_send_update_data(hdr_len=hdr_len, trans_len=trans_len)
        # Both buffers live as long as the struct: all three are here.
        self.arg.hdr_uaddr = ctypes.addressof(self._hdr)
        self.arg.trans_uaddr = ctypes.addressof(self._trans)

    def at(self, address: int, size: int = PAGE_BYTES) -> uapi.kvm_sev_send_update_data:
        """The struct, for guest memory at ``address``: within a page, multiples of 16."""
        self.arg.guest_uaddr, self.arg.guest_len = address, size
        return self.arg

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
