"""Asks the kernel, by rtnetlink and ethtool through pyroute2. Only requests that read."""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING, Protocol, Self

from pyroute2.ethtool.ethtool import Ethtool  # type: ignore[import-untyped]
from pyroute2.ethtool.ioctl import EthtoolError  # type: ignore[import-untyped]
from pyroute2.iproute.linux import IPRoute  # type: ignore[import-untyped]
from pyroute2.netlink import NLM_F_DUMP_INTR, nlmsg  # type: ignore[import-untyped]
from pyroute2.netlink.exceptions import NetlinkError  # type: ignore[import-untyped]
from pyroute2.netlink.rtnl import RTM_NEWQDISC, RTM_NEWTCLASS  # type: ignore[import-untyped]
from pyroute2.netlink.rtnl.tcmsg import tcmsg  # type: ignore[import-untyped]

from kvmenc.errors import HostError, errno_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from kvmenc.link.messages import Message

__all__ = ["Kernel", "LiveKernel", "TcMessage"]

#: The entry of the routing table rather than the choice (Linux v6.12, uapi/linux/rtnetlink.h).
_RTM_F_FIB_MATCH = 0x2000

#: Of a list that changes while it is read.
_MOST_TRIES = 5

#: Routes that forbid, by the error that asking gives (Linux v6.12, net/ipv4/fib_semantics.c,
#: fib_props).
_NO_WAY = {
    errno.ENETUNREACH: "no route",
    errno.EHOSTUNREACH: "an unreachable route",
    errno.EACCES: "a prohibit route",
    errno.EINVAL: "a blackhole route",
}


class Kernel(Protocol):
    """What must be asked: the running kernel answers, or a recording of one."""

    def links(self) -> list[Message]:
        """RTM_NEWLINK of every device."""
        ...

    def route(self, address: str, device: int | None) -> Message:
        """RTM_NEWROUTE: the kernel's choice for an address."""
        ...

    def table_entry(self, address: str, device: int | None) -> Message | None:
        """RTM_NEWROUTE: the entry that the choice was made from; None from an old kernel."""
        ...

    def neighbours(self) -> list[Message]:
        """RTM_NEWNEIGH of both IP versions."""
        ...

    def forwarding(self) -> list[Message]:
        """RTM_NEWNEIGH of bridges and VXLANs."""
        ...

    def qdiscs(self, device: int) -> list[Message]:
        """RTM_NEWQDISC of a device, options undecoded."""
        ...

    def classes(self, device: int) -> list[Message]:
        """RTM_NEWTCLASS of a device, options undecoded."""
        ...

    def speed_mbit_per_s(self, name: str) -> int | None:
        """A device's speed as ethtool tells it; None where it does not."""
        ...


class TcMessage(nlmsg):  # type: ignore[misc]  # pyroute2 is untyped
    """A tcmsg whose options stay bytes: pyroute2 knows no fq, and no rates over 4 GB/s."""

    prefix = "TCA_"
    fields = tcmsg.fields
    nla_map = (("TCA_UNSPEC", "none"), ("TCA_KIND", "asciiz"), ("TCA_OPTIONS", "cdata"))


class LiveKernel:
    """The running kernel, in the network namespace of the calling thread. A context manager."""

    def __init__(self) -> None:
        try:
            self._rtnetlink, self._ethtool = IPRoute(), Ethtool()
        except OSError as error:
            raise HostError(f"rtnetlink: no socket: {errno_name(error.errno or 0)}") from error
        self._rtnetlink.register_policy({RTM_NEWQDISC: TcMessage, RTM_NEWTCLASS: TcMessage})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._ethtool.close()
        self._rtnetlink.close()

    def links(self) -> list[Message]:
        """RTM_NEWLINK of every device."""
        return _dump("RTM_GETLINK", self._rtnetlink.get_links)

    def route(self, address: str, device: int | None) -> Message:
        """RTM_NEWROUTE: the kernel's choice for an address.

        Raises:
            HostError: there is none, or it forbids.
        """
        try:
            return self._route(address, device, 0)
        except NetlinkError as error:
            why = _NO_WAY.get(error.code, errno_name(error.code))
            raise HostError(f"{address} cannot be reached from here: {why}") from error

    def table_entry(self, address: str, device: int | None) -> Message | None:
        """RTM_NEWROUTE: the entry that the choice was made from; None from an old kernel."""
        try:
            return self._route(address, device, _RTM_F_FIB_MATCH)
        except NetlinkError:
            return None

    def _route(self, address: str, device: int | None, flags: int) -> Message:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        wanted = {"dst": address, "family": family, "flags": flags}
        if device is not None:
            wanted["oif"] = device
        found: Message = next(iter(self._rtnetlink.route("get", **wanted)))
        return found

    def neighbours(self) -> list[Message]:
        """RTM_NEWNEIGH of both IP versions."""
        return _dump("RTM_GETNEIGH", self._rtnetlink.get_neighbours)

    def forwarding(self) -> list[Message]:
        """RTM_NEWNEIGH of bridges and VXLANs."""
        return _dump("RTM_GETNEIGH", self._rtnetlink.get_neighbours, family=socket.AF_BRIDGE)

    def qdiscs(self, device: int) -> list[Message]:
        """RTM_NEWQDISC of a device, options undecoded."""
        every = _dump("RTM_GETQDISC", self._rtnetlink.get_qdiscs)
        return [one for one in every if one["index"] == device]

    def classes(self, device: int) -> list[Message]:
        """RTM_NEWTCLASS of a device, options undecoded."""
        return _dump("RTM_GETTCLASS", self._rtnetlink.get_classes, index=device)

    def speed_mbit_per_s(self, name: str) -> int | None:
        """A device's speed as ethtool tells it; None where it does not."""
        try:
            speed: int | None = self._ethtool.get_link_mode(name).speed
        except (EthtoolError, NetlinkError, OSError):
            return None
        return speed


def _dump(request: str, ask: Callable[..., Iterable[Message]], **wanted: int) -> list[Message]:
    """A whole list; asked for again if it changed while it was read."""
    for _ in range(_MOST_TRIES):
        try:
            found = list(ask(**wanted))
        except (NetlinkError, OSError) as error:
            number = error.code if isinstance(error, NetlinkError) else error.errno
            raise HostError(f"rtnetlink: {request} failed: {errno_name(number or 0)}") from error
        if not any(one["header"]["flags"] & NLM_F_DUMP_INTR for one in found):
            return found
    raise HostError(f"rtnetlink: {request}: the list changes all the time: try again")
