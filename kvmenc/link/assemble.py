"""From what was seen to what one TCP connection gets. Nothing is asked here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from kvmenc.errors import HostError
from kvmenc.link.goodput import (
    ETHERNET_HEADER_BYTES,
    FRAMING_BYTES,
    goodput_bytes_per_s,
    payload_bytes,
    smallest_mtu_bytes,
)
from kvmenc.link.model import Device, Limit, Link
from kvmenc.link.way import Way

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kvmenc.link.model import NextHop, Route, Shaping
    from kvmenc.link.resolve import Destination
    from kvmenc.link.shaping import Shapes
    from kvmenc.link.way import Stage

__all__ = ["Load", "Seen", "assemble"]

_BYTES_PER_MBIT = 125_000

_LOCAL_NOTE = "This machine itself: at the speed of memory, for which there is no estimate."


class Load(NamedTuple):
    """What a device sent per second."""

    bytes_per_s: float
    packets_per_s: float


@dataclass(frozen=True, slots=True)
class Seen:
    """What the kernel told; all but the route is empty where that is this machine itself.

    Attributes:
        route: its choice.
        way: devices.
        shapes: of each device, by index.
        speed_mbit_per_s: likewise.
        load: likewise.
        elapsed_s: how long the load was watched.
    """

    route: Route
    way: Way = field(default_factory=Way)
    shapes: dict[int, Shapes] = field(default_factory=dict)
    speed_mbit_per_s: dict[int, int | None] = field(default_factory=dict)
    load: dict[int, Load] = field(default_factory=dict)
    elapsed_s: float = 0.0


def assemble(host: str, netns: str | None, destination: Destination, seen: Seen) -> Link:
    """Put it together.

    Raises:
        HostError: an MTU that is too small for the protocol.
    """
    mtu = None if seen.route.local else _mtu(seen, destination)
    devices = tuple(_device(stage, seen) for stage in seen.way.stages)
    found = [
        limit
        for stage, device in zip(seen.way.stages, devices, strict=True)
        if mtu is not None and not stage.shares
        for limit in _limits(stage, device, mtu, ipv6=destination.ipv6)
    ]
    limits = tuple(sorted(found, key=lambda limit: limit.goodput_bytes_per_s))
    return Link(
        host=host,
        address=destination.address,
        other_addresses=destination.others,
        netns=netns,
        route=seen.route,
        mtu_bytes=mtu,
        devices=devices,
        limits=limits,
        goodput_bytes_per_s=limits[0].goodput_bytes_per_s if limits else None,
        limited_by=f"{limits[0].by} of {limits[0].device}" if limits else None,
        sampled_ms=seen.elapsed_s * 1000,
        notes=tuple(_notes(seen, devices, known=bool(limits))),
    )


def _mtu(seen: Seen, destination: Destination) -> int:
    candidates = [one.device.mtu_bytes - one.overhead_bytes for one in seen.way.stages]
    least = min([*candidates, seen.route.mtu_bytes or candidates[0]])
    if least < smallest_mtu_bytes(ipv6=destination.ipv6):
        version = 6 if destination.ipv6 else 4
        raise HostError(f"{destination.address}: an MTU of {least} on the way is no IPv{version}")
    return least


def _device(stage: Stage, seen: Seen) -> Device:
    index = stage.device.index
    return Device(
        name=stage.device.name,
        kind=stage.device.kind or "physical",
        above=stage.above,
        up=stage.device.up,
        mtu_bytes=stage.device.mtu_bytes,
        overhead_bytes=stage.overhead_bytes,
        vlan_bytes=stage.vlan_bytes,
        speed_bytes_per_s=_speed(stage, seen),
        load_bytes_per_s=seen.load[index].bytes_per_s,
        load_packets_per_s=seen.load[index].packets_per_s,
        shaping=tuple(seen.shapes[index].rates),
        detail=stage.detail,
    )


def _speed(stage: Stage, seen: Seen) -> float | None:
    """A bond's is the sum of its members in use; other kinds of software have none.

    What their drivers tell is made up, as veth's 10 Gbit/s (Linux v6.12, drivers/net/veth.c), or
    that of the device below, which is on the way itself.
    """
    if stage.members:
        speeds = [_speed(member, seen) for member in stage.members]
        known = [speed for speed in speeds if speed is not None]
        return sum(known) if len(known) == len(speeds) else None
    if stage.device.kind is not None:
        return None
    mbit = seen.speed_mbit_per_s[stage.device.index]
    return mbit * _BYTES_PER_MBIT if mbit else None


def _limits(stage: Stage, device: Device, mtu: int, *, ipv6: bool) -> Iterator[Limit]:
    """Shaping counts frames as they are queued, a wire also what stands around them.

    Where a connection keeps to one member of a bond, the members are the limits, not their sum.
    """
    payload = payload_bytes(mtu, ipv6=ipv6)
    frame = mtu + device.overhead_bytes + device.vlan_bytes + ETHERNET_HEADER_BYTES
    one_member = stage.members and not all(member.shares for member in stage.members)
    if device.speed_bytes_per_s is not None and not one_member:
        load = device.load_bytes_per_s + device.load_packets_per_s * FRAMING_BYTES
        whole = (device.speed_bytes_per_s, load, payload, frame + FRAMING_BYTES)
        yield _limit(device.name, "speed", *whole)
    for one in device.shaping:
        load = 0.0 if one.per_connection else _shaped_load(device, one)
        whole = (one.rate_bytes_per_s, load, payload, frame + one.overhead_bytes)
        yield _limit(device.name, one.by, *whole)


def _shaped_load(device: Device, shaping: Shaping) -> float:
    return device.load_bytes_per_s + device.load_packets_per_s * shaping.overhead_bytes


def _limit(device: str, by: str, rate: float, load: float, payload: int, packet: int) -> Limit:
    return Limit(
        device=device,
        by=by,
        rate_bytes_per_s=rate,
        load_bytes_per_s=load,
        payload_bytes=payload,
        packet_bytes=packet,
        goodput_bytes_per_s=goodput_bytes_per_s(rate, load, payload, packet),
    )


def _notes(seen: Seen, devices: tuple[Device, ...], *, known: bool) -> Iterator[str]:
    if seen.route.local:
        yield _LOCAL_NOTE
        return
    if seen.route.next_hops:
        ways = " or ".join(_next_hop(hop) for hop in seen.route.next_hops)
        taken = _by(seen.route.gateway, seen.route.device)
        yield f"Several ways, {ways}: a connection takes one; this is {taken}."
    yield from (f"{note}." for note in seen.way.notes)
    for device, shape in zip(devices, seen.shapes.values(), strict=True):
        yield from (f"{device.name}: {note}." for note in shape.notes)
    unknown = [it.name for it in devices if it.kind == "physical" and it.speed_bytes_per_s is None]
    if unknown:
        yield f"Speed not told by {', '.join(unknown)}: taken to be no limit."
    if known:
        yield "One TCP connection: full packets, no loss, a receiver that keeps up."
        yield "What lies behind the next machine is not seen from here."


def _next_hop(hop: NextHop) -> str:
    return f"{_by(hop.gateway, hop.device)} (weight {hop.weight})"


def _by(gateway: str | None, device: str) -> str:
    return f"{gateway} by {device}" if gateway else device
