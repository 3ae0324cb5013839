"""Netlink attributes as the kernel lays them out, for those that pyroute2 does not decode.

Source: Linux v6.12, include/uapi/linux/netlink.h, struct nlattr.
"""

from __future__ import annotations

import struct
import sys

from kvmenc.errors import HostError

__all__ = ["number", "split", "unpack"]

_HEADER = struct.Struct("=HH")
_NUMBER_BYTES = 8
_TYPE_MASK = 0x3FFF  # without NLA_F_NESTED and NLA_F_NET_BYTEORDER


def split(data: bytes) -> dict[int, bytes]:
    """Attributes that follow one another, by type; of a repeated one the last.

    Raises:
        HostError: a length that leads outside.
    """
    found, at = {}, 0
    while at + _HEADER.size <= len(data):
        length, kind = _HEADER.unpack_from(data, at)
        if length < _HEADER.size or at + length > len(data):
            raise HostError(f"netlink: an attribute at byte {at} of {len(data)} is {length} long")
        found[kind & _TYPE_MASK] = data[at + _HEADER.size : at + length]
        at += (length + 3) & ~3
    return found


def number(attributes: dict[int, bytes], kind: int, *, signed: bool = False) -> int | None:
    """A number of this machine's byte order; None where the attribute is absent.

    Raises:
        HostError: it is longer than any number of the kernel's.
    """
    if kind not in attributes:
        return None
    if len(attributes[kind]) > _NUMBER_BYTES:
        raise HostError(f"netlink: a number of {len(attributes[kind])} bytes")
    return int.from_bytes(attributes[kind], sys.byteorder, signed=signed)


def unpack(layout: struct.Struct, data: bytes) -> tuple[int, ...]:
    """The fields of a struct at the start of ``data``; newer kernels may have added some behind.

    Raises:
        HostError: it is too short.
    """
    if len(data) < layout.size:
        raise HostError(f"netlink: {len(data)} bytes where {layout.size} were expected")
    return layout.unpack_from(data)
