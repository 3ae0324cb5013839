"""From the route's device down to what puts frames on a wire, through what lies between.

Sources: Linux v6.12, include/uapi/linux/if_link.h; Documentation/networking/bonding.rst.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kvmenc.link.messages import attribute
from kvmenc.link.neighbours import Neighbours

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from kvmenc.link.kernel import Kernel
    from kvmenc.link.messages import NetDevice

__all__ = ["Stage", "Way", "way"]

_VLAN_TAG_BYTES = 4
#: Inner Ethernet header 14, VXLAN 8, UDP 8, and the outer IP header (RFC 7348).
_VXLAN_BYTES = {4: 14 + 8 + 8 + 20, 6: 14 + 8 + 8 + 40}
_BOND_MODES = {
    0: "balance-rr",
    1: "active-backup",
    2: "balance-xor",
    3: "broadcast",
    4: "802.3ad",
    5: "balance-tlb",
    6: "balance-alb",
}


@dataclass(slots=True)
class Stage:
    """A device on the way.

    Attributes:
        device: it.
        above: the one that sends through it; None for the first.
        overhead_bytes: of tunnels above.
        vlan_bytes: of tags above.
        detail: what else is to be known.
        shares: it takes only a part of each connection, so it is no limit by itself.
        members: in use, of a bond or team.
    """

    device: NetDevice
    above: str | None = None
    overhead_bytes: int = 0
    vlan_bytes: int = 0
    detail: str = ""
    shares: bool = False
    members: list[Stage] = field(default_factory=list)


@dataclass(slots=True)
class Way:
    """Stages, the route's device first, and what to know about them."""

    stages: list[Stage] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def way(kernel: Kernel, devices: Mapping[int, NetDevice], first: int, next_address: str) -> Way:
    """Walk down.

    Args:
        kernel: answers what depends on the address.
        devices: of the namespace, by index.
        first: the index of the route's device.
        next_address: the next machine's: the gateway's, or the destination's.

    Raises:
        HostError: the outer packets of a tunnel have no route.
    """
    walk = _Walk(kernel, devices, Neighbours(kernel, first, next_address))
    walk.visit(Stage(devices[first]))
    return walk.found


class _Walk:
    def __init__(
        self, kernel: Kernel, devices: Mapping[int, NetDevice], neighbours: Neighbours
    ) -> None:
        self._kernel = kernel
        self._devices = devices
        self._neighbours = neighbours
        self.found = Way()
        self._below: dict[str, Callable[[Stage], None]] = {
            "vlan": self._vlan,
            "macvlan": self._lower,
            "macvtap": self._lower,
            "ipvlan": self._lower,
            "bond": self._bond,
            "team": self._team,
            "bridge": self._bridge,
            "vxlan": self._vxlan,
            "veth": self._veth,
        }

    def visit(self, stage: Stage) -> None:
        """Add a stage and what lies below it."""
        if any(one.device.index == stage.device.index for one in self.found.stages):
            return
        self.found.stages.append(stage)
        if not stage.device.up:
            self.found.notes.append(f"{stage.device.name} is down")
        kind = stage.device.kind
        if kind in self._below:
            self._below[kind](stage)
        elif kind is not None:
            self._note(stage, f"is of kind {kind}: what lies below it is not followed")

    def _note(self, stage: Stage, text: str) -> None:
        self.found.notes.append(f"{stage.device.name} {text}")

    def _down(self, above: Stage, index: int, *, tunnel: int = 0, tag: int = 0) -> None:
        self.visit(self._stage(above, index, tunnel=tunnel, tag=tag))

    def _stage(self, above: Stage, index: int, *, tunnel: int = 0, tag: int = 0) -> Stage:
        return Stage(
            self._devices[index],
            above.device.name,
            above.overhead_bytes + tunnel,
            above.vlan_bytes + tag,
            shares=above.shares,
        )

    def _lower_index(self, stage: Stage) -> int | None:
        """The device below, if it is in this namespace."""
        if stage.device.lower_elsewhere:
            self._note(stage, "ends in another network namespace: look with --netns there")
            return None
        return stage.device.lower if stage.device.lower in self._devices else None

    def _lower(self, stage: Stage) -> None:
        lower = self._lower_index(stage)
        if lower is not None:
            self._down(stage, lower)

    def _vlan(self, stage: Stage) -> None:
        stage.detail = f"id {attribute(stage.device.data, 'IFLA_VLAN_ID')}"
        lower = self._lower_index(stage)
        if lower is not None:
            self._down(stage, lower, tag=_VLAN_TAG_BYTES)

    def _members(self, stage: Stage) -> list[NetDevice]:
        return [one for one in self._devices.values() if one.master == stage.device.index]

    def _bond(self, stage: Stage) -> None:
        number = attribute(stage.device.data, "IFLA_BOND_MODE")
        mode = _BOND_MODES.get(number, f"mode {number}")
        active = attribute(stage.device.data, "IFLA_BOND_ACTIVE_SLAVE")
        members = self._members(stage)
        usable = [one for one in members if _usable(one)]
        if mode == "active-backup":
            usable = [one for one in members if one.index == active]
        self._spread(stage, mode, usable, members)

    def _team(self, stage: Stage) -> None:
        members = self._members(stage)
        self._spread(stage, "team", [one for one in members if one.up], members)

    def _spread(
        self, stage: Stage, mode: str, usable: list[NetDevice], members: list[NetDevice]
    ) -> None:
        names = ", ".join(one.name for one in usable) or "none"
        stage.detail = f"{mode}, {len(usable)} of {len(members)} in use: {names}"
        stage.members = [self._stage(stage, one.index) for one in usable]
        for member in stage.members:
            member.shares = mode == "balance-rr"
            self.visit(member)
        if len(usable) > 1 and mode != "balance-rr":
            self._note(stage, "gives one connection one member: its tightest is taken")
        if not usable:
            self._note(stage, "has no member that can send")

    def _bridge(self, stage: Stage) -> None:
        """The port behind which the next machine was seen; else the only one there is."""
        ports = self._members(stage)
        came_from = {one.device.lower for one in self.found.stages if one.device.kind == "veth"}
        others = [port for port in ports if port.index not in came_from]
        learned = self._neighbours.bridge_port(stage.device, ports)
        port = learned or (others[0] if len(others) == 1 else None)
        if port is None:
            self._note(stage, f"has {len(others)} ports: which one leads there is not known yet")
            return
        stage.detail = f"by port {port.name} of {len(ports)}"
        self._down(stage, port.index)

    def _veth(self, stage: Stage) -> None:
        """A pair: what goes in here comes out of the other, there into a bridge perhaps."""
        peer = self._lower_index(stage)
        if peer is None:
            return
        other = self._devices[peer]
        stage.detail = f"peer {other.name}"
        if other.master is not None and self._devices[other.master].kind == "bridge":
            self._down(stage, other.master)
        else:
            self._note(stage, f"ends at {other.name}: what is beyond is not followed")

    def _vxlan(self, stage: Stage) -> None:
        """The outer packets have a route, and a next machine, of their own."""
        remote = self._neighbours.vxlan_peer(stage.device)
        if remote is None:
            self._note(stage, "has no peer known for that machine: the way below is not known")
            return
        stage.detail = f"id {attribute(stage.device.data, 'IFLA_VXLAN_ID')} to {remote}"
        route = self._kernel.route(remote, attribute(stage.device.data, "IFLA_VXLAN_LINK"))
        outer = attribute(route, "RTA_OIF")
        if outer in self._devices:
            gateway = attribute(route, "RTA_GATEWAY")
            self._neighbours = Neighbours(self._kernel, outer, gateway or remote)
            # Tags from above travel inside, and take their part of the MTU.
            tunnel = _VXLAN_BYTES[6 if ":" in remote else 4] + stage.vlan_bytes
            self._down(stage, outer, tunnel=tunnel, tag=-stage.vlan_bytes)


def _usable(member: NetDevice) -> bool:
    """Up and not a backup, as the bond sees it (IFLA_BOND_SLAVE_STATE, _MII_STATUS: 0 is good)."""
    state = attribute(member.slave_data, "IFLA_BOND_SLAVE_STATE")
    carrier = attribute(member.slave_data, "IFLA_BOND_SLAVE_MII_STATUS")
    return member.up and not state and not carrier
