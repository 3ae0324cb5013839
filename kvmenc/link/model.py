"""The way to a host as data: what ``kvmenc link --json`` prints, schema ``kvmenc.link/1``."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

__all__ = ["Device", "Limit", "Link", "NextHop", "Route", "Shaping"]


class NextHop(Struct, frozen=True):
    """One way of a multipath route.

    Attributes:
        gateway: the next machine; null where the destination is on the same network.
        device: leads to it.
        weight: its share of all connections is this number over the sum of all ways'.
    """

    gateway: str | None
    device: str
    weight: int


class Route(Struct, frozen=True, kw_only=True):
    """The kernel's choice for the address.

    Attributes:
        local: the address is this machine's own: nothing goes over a wire.
        device: leads to it.
        source: the address that a connection would have here.
        gateway: the next machine; null where the destination is on the same network.
        mtu_bytes: of the route itself (set, or learned from the way); null where it has none.
        next_hops: of a multipath route, of which the kernel chose one; else empty.
    """

    local: bool
    device: str
    source: str | None
    gateway: str | None
    mtu_bytes: int | None
    next_hops: tuple[NextHop, ...] = ()


class Shaping(Struct, frozen=True, kw_only=True):
    """A rate that a qdisc lets through.

    Attributes:
        by: the qdisc or class, such as ``tbf 1:`` or ``htb class 1:10``.
        rate_bytes_per_s: what passes at most, of Ethernet frames without checksum.
        guaranteed_bytes_per_s: what htb gives in any case; null elsewhere.
        burst_bytes: what passes at once; null where the qdisc has none.
        per_connection: the rate is each connection's own.
        overhead_bytes: is added to every frame when it is counted.
    """

    by: str
    rate_bytes_per_s: float
    guaranteed_bytes_per_s: float | None = None
    burst_bytes: float | None = None
    per_connection: bool = False
    overhead_bytes: int = 0


class Device(Struct, frozen=True, kw_only=True):
    """A device on the way.

    Attributes:
        name: its name.
        kind: the kernel's kind, ``vlan``, ``bond``, ...; ``physical`` where it has none.
        above: the device that sends through it; null for the route's own.
        up: whether it is running.
        mtu_bytes: its MTU.
        overhead_bytes: of tunnels above, in each IP packet that it sends.
        vlan_bytes: of VLAN tags above, in each frame.
        speed_bytes_per_s: null where it is not known, or is nobody's limit (veth and the like).
        load_bytes_per_s: sent by it while it was looked at.
        load_packets_per_s: likewise.
        shaping: rates of its queueing disciplines.
        detail: what else is to be known, in words; may be empty.
    """

    name: str
    kind: str
    above: str | None
    up: bool
    mtu_bytes: int
    overhead_bytes: int
    vlan_bytes: int
    speed_bytes_per_s: float | None
    load_bytes_per_s: float
    load_packets_per_s: float
    shaping: tuple[Shaping, ...]
    detail: str


class Limit(Struct, frozen=True, kw_only=True):
    """What one TCP connection gets at most, because of one thing.

    Attributes:
        device: where.
        by: ``speed``, or the shaping.
        rate_bytes_per_s: what passes in all.
        load_bytes_per_s: what of it is in use by others now.
        payload_bytes: of a full packet, for TCP's user.
        packet_bytes: of the same packet as this limit counts it.
        goodput_bytes_per_s: ``(rate - load) * payload / packet``, not below 0.
    """

    device: str
    by: str
    rate_bytes_per_s: float
    load_bytes_per_s: float
    payload_bytes: int
    packet_bytes: int
    goodput_bytes_per_s: float


class Link(Struct, frozen=True, kw_only=True):
    """The way to a host.

    Attributes:
        schema: ``kvmenc.link/1``.
        host: as given.
        address: that was looked for.
        other_addresses: that the name has too; QEMU tries them when the first fails.
        netns: the network namespace that was looked into; null for the caller's own.
        route: the kernel's choice.
        mtu_bytes: the least on the way, of an IP packet; null for this machine itself.
        devices: the route's first, then what lies below.
        limits: all that are known, the tightest first.
        goodput_bytes_per_s: what one TCP connection gets at most; null where no limit is known.
        limited_by: the tightest limit, in words; null likewise.
        sampled_ms: for how long the load was watched.
        notes: what could not be known, and what the numbers rest on.
    """

    schema: Literal["kvmenc.link/1"] = "kvmenc.link/1"
    host: str
    address: str
    other_addresses: tuple[str, ...]
    netns: str | None
    route: Route
    mtu_bytes: int | None
    devices: tuple[Device, ...]
    limits: tuple[Limit, ...]
    goodput_bytes_per_s: float | None
    limited_by: str | None
    sampled_ms: float
    notes: tuple[str, ...]
