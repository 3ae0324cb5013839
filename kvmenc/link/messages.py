"""Rtnetlink messages as pyroute2 decodes them, and the network devices in them.

Source: Linux v6.12, include/uapi/linux/if_link.h and rtnetlink.h.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Message", "NetDevice", "attribute", "net_devices"]

#: A decoded message: its header's fields, and under ``attrs`` pairs of a name and a value.
Message = Mapping[str, Any]


def attribute(message: Message | None, *names: str) -> Any:  # noqa: ANN401 - as netlink has it
    """The attribute at the end of a way of nested ones; None where there is none."""
    value: Any = message
    for name in names:
        nested = value.get("attrs", ()) if isinstance(value, Mapping) else ()
        value = next((pair[1] for pair in nested if pair[0] == name), None)
    return value


@dataclass(frozen=True, slots=True)
class NetDevice:
    """A network device.

    Attributes:
        index: the kernel's number of it, within its namespace.
        name: its name.
        kind: such as ``vlan``; None for one that is no link type of its own, as hardware.
        loopback: it is ``lo``.
        up: running: administratively up, and not known to be without a carrier.
        mtu_bytes: its MTU.
        lower: the index of the device below, or the peer; None without.
        lower_elsewhere: that index counts in another namespace.
        master: the index of the bond or bridge that it is part of.
        tx_bytes: sent since it was made.
        tx_packets: likewise.
        data: of its kind (IFLA_INFO_DATA).
        slave_data: as a part of its master (IFLA_INFO_SLAVE_DATA).
    """

    index: int
    name: str
    kind: str | None
    loopback: bool
    up: bool
    mtu_bytes: int
    lower: int | None
    lower_elsewhere: bool
    master: int | None
    tx_bytes: int
    tx_packets: int
    data: Message | None
    slave_data: Message | None

    @classmethod
    def of(cls, message: Message) -> NetDevice:
        """Read an RTM_NEWLINK message."""
        stats = attribute(message, "IFLA_STATS64") or {}
        flags = message["flags"]
        return cls(
            index=message["index"],
            name=attribute(message, "IFLA_IFNAME"),
            kind=attribute(message, "IFLA_LINKINFO", "IFLA_INFO_KIND"),
            loopback=bool(flags & _IFF_LOOPBACK),
            up=bool(flags & _IFF_UP and flags & _IFF_RUNNING),
            mtu_bytes=attribute(message, "IFLA_MTU"),
            lower=attribute(message, "IFLA_LINK"),
            lower_elsewhere=attribute(message, "IFLA_LINK_NETNSID") is not None,
            master=attribute(message, "IFLA_MASTER"),
            tx_bytes=stats.get("tx_bytes", 0),
            tx_packets=stats.get("tx_packets", 0),
            data=_info(message, "IFLA_INFO_DATA"),
            slave_data=_info(message, "IFLA_INFO_SLAVE_DATA"),
        )


_IFF_UP, _IFF_LOOPBACK, _IFF_RUNNING = 0x1, 0x8, 0x40


def _info(message: Message, name: str) -> Message | None:
    """Kinds that pyroute2 does not know come as text."""
    value = attribute(message, "IFLA_LINKINFO", name)
    return value if isinstance(value, Mapping) else None


def net_devices(messages: list[Message]) -> dict[int, NetDevice]:
    """All devices of a namespace, by index."""
    return {device.index: device for device in map(NetDevice.of, messages)}
