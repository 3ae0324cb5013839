"""Pages on their way: headers and contents, and the struct that points at both of one."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

import numpy as np

from kvmenc import uapi

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["PAGE_BYTES", "Packet", "PacketRows"]

PAGE_BYTES = 4096
_ARGS = np.dtype(uapi.kvm_sev_send_update_data)


class PacketRows:
    """Some pages on their way, a row each, and the struct of each one's command.

    Args:
        headers: of shape (count, bytes of a header), a row after the other in memory.
        contents: of shape (count, bytes of a page's contents on the wire), likewise.

    Attributes:
        headers: as given.
        contents: as given.
        args: an array of struct kvm_sev_send_update_data, which kvm_sev_receive_update_data equals.
    """

    def __init__(self, headers: NDArray[np.uint8], contents: NDArray[np.uint8]) -> None:
        self.headers, self.contents = headers, contents
        row = np.arange(len(headers), dtype=np.uint64)
        args = self.args = np.zeros(row.size, _ARGS)
        args["hdr_len"], args["trans_len"] = headers.shape[1], contents.shape[1]
        args["hdr_uaddr"] = headers.ctypes.data + row * headers.shape[1]
        args["trans_uaddr"] = contents.ctypes.data + row * contents.shape[1]

    def lie_at(self, addresses: NDArray[np.int64]) -> None:
        """Guest memory of as many rows, from the first on: a page each."""
        args = self.args[: addresses.size]
        args["guest_uaddr"], args["guest_len"] = addresses, PAGE_BYTES


class Packet:
    """Room for one page, made once and used again for other pages.

    Args:
        hdr_len: bytes of a header, as the firmware says.
        trans_len: bytes of contents.
    """

    def __init__(self, hdr_len: int, trans_len: int = PAGE_BYTES) -> None:
        self._arg = uapi.kvm_sev_send_update_data(hdr_len=hdr_len, trans_len=trans_len)
        self._hdr = ctypes.create_string_buffer(hdr_len)
        self._trans = ctypes.create_string_buffer(trans_len)
        # Both buffers live as long as the struct: all three are here.
        self._arg.hdr_uaddr = ctypes.addressof(self._hdr)
        self._arg.trans_uaddr = ctypes.addressof(self._trans)

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

    def at(self, address: int, size: int = PAGE_BYTES) -> uapi.kvm_sev_send_update_data:
        """The struct, for guest memory at ``address``: within a page, multiples of 16."""
        self._arg.guest_uaddr, self._arg.guest_len = address, size
        return self._arg
