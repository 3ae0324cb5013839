"""Where frames to the next machine go: behind which port of a bridge, to which VXLAN peer.

Source: Linux v6.12, include/uapi/linux/neighbour.h; its entries are what the kernel has learned.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvmenc.link.messages import attribute

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kvmenc.link.kernel import Kernel
    from kvmenc.link.messages import NetDevice

__all__ = ["Neighbours"]

_NUD_PERMANENT = 0x80
#: Where VXLAN sends what it has learned nothing about.
_ANY = "00:00:00:00:00:00"


class Neighbours:
    """Asks when it is asked.

    Args:
        kernel: knows.
        device: the index of the route's device.
        address: the next machine's.
    """

    def __init__(self, kernel: Kernel, device: int, address: str) -> None:
        self._kernel = kernel
        self._device = device
        self._address = address

    def _hardware_address(self) -> str | None:
        known = (
            attribute(one, "NDA_LLADDR")
            for one in self._kernel.neighbours()
            if one["ifindex"] == self._device and attribute(one, "NDA_DST") == self._address
        )
        return next(filter(None, known), None)

    def bridge_port(self, bridge: NetDevice, ports: Sequence[NetDevice]) -> NetDevice | None:
        """The port behind which the next machine was seen; permanent entries are the ports' own."""
        hardware_address = self._hardware_address()
        if hardware_address is None:
            return None
        indexes = {
            one["ifindex"]
            for one in self._kernel.forwarding()
            if attribute(one, "NDA_LLADDR") == hardware_address
            and attribute(one, "NDA_MASTER") == bridge.index
            and not one["state"] & _NUD_PERMANENT
        }
        return next((port for port in ports if port.index in indexes), None)

    def vxlan_peer(self, vxlan: NetDevice) -> str | None:
        """The peer's address: learned for the next machine, else where all else is sent."""
        learned: dict[str | None, str] = {
            attribute(one, "NDA_LLADDR"): attribute(one, "NDA_DST")
            for one in self._kernel.forwarding()
            if one["ifindex"] == vxlan.index and attribute(one, "NDA_DST")
        }
        group: str | None = attribute(vxlan.data, "IFLA_VXLAN_GROUP")
        group6: str | None = attribute(vxlan.data, "IFLA_VXLAN_GROUP6")
        return learned.get(self._hardware_address()) or learned.get(_ANY) or group or group6
