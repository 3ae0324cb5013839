"""A kernel that was recorded: netlink messages as bytes, decoded the way live ones are.

Links are encoded by pyroute2 (0.9.7) with the attributes of Linux v6.12,
include/uapi/linux/if_link.h; qdiscs by hand or by iproute2.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pyroute2.netlink.rtnl import (  # type: ignore[import-untyped]
    RTM_NEWLINK,
    RTM_NEWQDISC,
    RTM_NEWTCLASS,
)
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg  # type: ignore[import-untyped]
from pyroute2.netlink.rtnl.marshal import MarshalRtnl  # type: ignore[import-untyped]

from kvmenc.link.kernel import TcMessage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kvmenc.link.messages import Message

ROOT = 0xFFFFFFFF
UP_AND_RUNNING = 0x1 | 0x40
GBIT = 125_000_000.0


def decode(data: bytes) -> list[Message]:
    """As LiveKernel has it decoded."""
    marshal = MarshalRtnl()
    marshal.msg_map = {**marshal.msg_map, RTM_NEWQDISC: TcMessage, RTM_NEWTCLASS: TcMessage}
    return list(marshal.parse(data))


def attribute(kind: int, value: bytes) -> bytes:
    """A struct nlattr, padded."""
    return struct.pack("=HH", 4 + len(value), kind) + value + b"\0" * (-len(value) % 4)


def tc(kind: str, handle: int, parent: int, options: bytes = b"", message: int = 36) -> bytes:
    """An RTM_NEWQDISC (36) or RTM_NEWTCLASS (40) message."""
    body = struct.pack("=BxxxiIII", 0, 1, handle, parent, 0)
    body += attribute(1, kind.encode() + b"\0") + attribute(2, options)
    return struct.pack("=IHHII", 16 + len(body), message, 0, 0, 0) + body


def link(
    index: int,
    name: str,
    *,
    kind: str | None = None,
    data: Mapping[str, Any] | None = None,
    slave: tuple[str, Mapping[str, Any]] | None = None,
    flags: int = UP_AND_RUNNING,
    mtu: int = 1500,
    sent: tuple[int, int] = (0, 0),
    **more: int,
) -> bytes:
    """An RTM_NEWLINK message. ``more``: attributes without their IFLA_."""
    info: list[tuple[str, Any]] = []
    if kind:
        info.append(("IFLA_INFO_KIND", kind))
    if data:
        info.append(("IFLA_INFO_DATA", {"attrs": list(data.items())}))
    if slave:
        info.append(("IFLA_INFO_SLAVE_KIND", slave[0]))
        info.append(("IFLA_INFO_SLAVE_DATA", {"attrs": list(slave[1].items())}))
    message = ifinfmsg()
    message["index"], message["flags"] = index, flags
    message["attrs"] = [
        ("IFLA_IFNAME", name),
        ("IFLA_MTU", mtu),
        ("IFLA_STATS64", {"tx_bytes": sent[0], "tx_packets": sent[1]}),
        *((f"IFLA_{key.upper()}", value) for key, value in more.items()),
        *([("IFLA_LINKINFO", {"attrs": info})] if info else []),
    ]
    message["header"]["type"] = RTM_NEWLINK
    message.encode()
    return bytes(message.data)


def route(device: int, **attributes: Any) -> Message:
    """What RTM_GETROUTE answers, decoded."""
    pairs = [(f"RTA_{key.upper()}", value) for key, value in attributes.items()]
    return {"type": 1, "attrs": [("RTA_OIF", device), *pairs]}


@dataclass
class RecordedKernel:
    """Answers from a recording.

    ``later`` are the links when the load is looked at again; ``others`` are routes of addresses
    other than the destination's.
    """

    first: bytes
    choice: Message
    later: bytes = b""
    entry: Message | None = None
    speeds: dict[str, int] = field(default_factory=dict)
    queueing: dict[int, bytes] = field(default_factory=dict)
    classing: dict[int, bytes] = field(default_factory=dict)
    hardware: list[Message] = field(default_factory=list)
    ports: list[Message] = field(default_factory=list)
    others: dict[str, Message] = field(default_factory=dict)
    looks: int = 0

    def links(self) -> list[Message]:
        self.looks += 1
        return decode(self.later if self.later and self.looks > 2 else self.first)

    def route(self, address: str, device: int | None) -> Message:
        return self.others.get(address, self.choice)

    def table_entry(self, address: str, device: int | None) -> Message | None:
        return self.entry

    def neighbours(self) -> list[Message]:
        return self.hardware

    def forwarding(self) -> list[Message]:
        return self.ports

    def qdiscs(self, device: int) -> list[Message]:
        return decode(self.queueing.get(device, b""))

    def classes(self, device: int) -> list[Message]:
        return decode(self.classing.get(device, b""))

    def speed_mbit_per_s(self, name: str) -> int | None:
        return self.speeds.get(name)
