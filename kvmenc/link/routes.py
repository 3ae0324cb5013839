"""The kernel's choice of a way, out of RTM_NEWROUTE messages.

Source: Linux v6.12, include/uapi/linux/rtnetlink.h.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvmenc.errors import HostError, InputError, errno_name
from kvmenc.link.messages import attribute
from kvmenc.link.model import NextHop, Route

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kvmenc.link.messages import Message, NetDevice

__all__ = ["read_route"]

_UNICAST, _LOCAL, _BROADCAST, _ANYCAST, _MULTICAST = 1, 2, 3, 4, 5
_FORBIDDING = {6: "a blackhole route", 7: "an unreachable route", 8: "a prohibit route"}


def read_route(
    address: str,
    choice: Message,
    table_entry: Message | None,
    devices: Mapping[int, NetDevice],
) -> Route:
    """Put the choice and the entry that it was made from together.

    Args:
        address: the destination.
        choice: what the kernel answers for it.
        table_entry: the entry of the routing table; None where the kernel does not tell.
        devices: of the namespace.

    Raises:
        HostError: the route forbids.
        InputError: the address is not one machine's.
    """
    _refuse(address, choice)
    index = attribute(choice, "RTA_OIF")
    if index not in devices:
        raise HostError(f"{address}: the route's device (number {index}) is gone: try again")
    return Route(
        local=choice["type"] in {_LOCAL, _ANYCAST} or devices[index].loopback,
        device=devices[index].name,
        source=attribute(choice, "RTA_PREFSRC"),
        gateway=_gateway(choice),
        mtu_bytes=attribute(choice, "RTA_METRICS", "RTAX_MTU"),
        next_hops=tuple(
            NextHop(_gateway(hop), devices[hop["oif"]].name, hop["hops"] + 1)
            for hop in attribute(table_entry, "RTA_MULTIPATH") or ()
            if hop["oif"] in devices
        ),
    )


def _refuse(address: str, choice: Message) -> None:
    kind = choice["type"]
    if kind in {_BROADCAST, _MULTICAST}:
        raise InputError(f"{address}: this address is not one machine's")
    error = (attribute(choice, "RTA_CACHEINFO") or {}).get("rta_error", 0)
    if kind in _FORBIDDING or error:
        why = _FORBIDDING.get(kind, errno_name(abs(error)))
        raise HostError(f"{address} cannot be reached from here: {why}")


def _gateway(message: Message) -> str | None:
    """IPv4 may go by way of an IPv6 gateway (RFC 8950), which is told apart."""
    gateway: str | None = attribute(message, "RTA_GATEWAY")
    via = attribute(message, "RTA_VIA")
    return gateway or (via["addr"] if via else None)
