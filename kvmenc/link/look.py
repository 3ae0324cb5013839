"""The whole look: address, route, devices, shaping, load."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from kvmenc.errors import HostError, InputError
from kvmenc.link.assemble import Load, Seen, assemble
from kvmenc.link.kernel import LiveKernel
from kvmenc.link.messages import net_devices
from kvmenc.link.namespace import inside
from kvmenc.link.resolve import resolve
from kvmenc.link.routes import read_route
from kvmenc.link.shaping import shapes
from kvmenc.link.way import way

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kvmenc.link.kernel import Kernel
    from kvmenc.link.messages import NetDevice
    from kvmenc.link.model import Link
    from kvmenc.link.resolve import Destination

__all__ = ["look", "observe"]


def look(host: str, netns: str | None = None, seconds: float = 1.0) -> Link:
    """Look at the way to a host. Nothing is sent there, and nothing changed.

    Args:
        host: a name or an address. Names are looked up in the caller's own namespace.
        netns: look inside this network namespace: a name of ``ip netns``, or a path.
        seconds: for how long the load is watched.

    Raises:
        InputError: no such host or namespace.
        HostError: no route, not permitted, or the kernel does not answer.
    """
    destination = resolve(host)

    def read() -> Seen:
        with LiveKernel() as kernel:
            return observe(kernel, destination, seconds)

    return assemble(host, netns, destination, inside(netns, read) if netns else read())


def observe(kernel: Kernel, destination: Destination, seconds: float) -> Seen:
    """Ask the kernel all that is to be known.

    Raises:
        InputError: the zone is no device, or the address not one machine's.
        HostError: no route.
    """
    devices = net_devices(kernel.links())
    zone = _zone(destination, devices)
    choice = kernel.route(destination.address, zone)
    entry = kernel.table_entry(destination.address, zone)
    route = read_route(destination.address, choice, entry, devices)
    if route.local:
        return Seen(route=route)
    first = next(one.index for one in devices.values() if one.name == route.device)
    found = way(kernel, devices, first, route.gateway or destination.address)
    indexes = [stage.device.index for stage in found.stages]
    load, elapsed_s = _load(kernel, indexes, seconds)
    return Seen(
        route=route,
        way=found,
        shapes={it: shapes(kernel.qdiscs(it), kernel.classes(it)) for it in indexes},
        speed_mbit_per_s={it: kernel.speed_mbit_per_s(devices[it].name) for it in indexes},
        load=load,
        elapsed_s=elapsed_s,
    )


def _zone(destination: Destination, devices: Mapping[int, NetDevice]) -> int | None:
    if destination.zone is None:
        return None
    for one in devices.values():
        if destination.zone in {one.name, str(one.index)}:
            return one.index
    raise InputError(f"{destination.address}%{destination.zone}: there is no such device")


def _load(kernel: Kernel, indexes: list[int], seconds: float) -> tuple[dict[int, Load], float]:
    """What devices sent within a time that is measured, not trusted."""
    before, start = net_devices(kernel.links()), time.monotonic()
    time.sleep(seconds)
    after, elapsed_s = net_devices(kernel.links()), time.monotonic() - start
    if any(index not in after for index in indexes):
        raise HostError("a device on the way went while it was looked at: try again")
    return {
        index: Load(
            max(0, after[index].tx_bytes - before[index].tx_bytes) / elapsed_s,
            max(0, after[index].tx_packets - before[index].tx_packets) / elapsed_s,
        )
        for index in indexes
    }, elapsed_s
