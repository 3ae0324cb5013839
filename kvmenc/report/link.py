"""The way to a host in a terminal of 80 columns. Names from the kernel are never markup."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from kvmenc import units
from kvmenc.report.terminal import bullet, columns

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from kvmenc.link.model import Device, Link, Shaping

__all__ = ["print_link"]


def print_link(link: Link, console: Console) -> None:
    """The number first, then the route, the devices, the limits, and what all that rests on."""
    style = "bold" if link.goodput_bytes_per_s is not None else "bold yellow"
    console.print(Text(_goodput(link), style))
    console.print(Text(f"{_route(link)}\n"))
    if link.devices:
        console.print(_devices(link.devices))
        console.print(Text())
    if link.limits:
        console.print(_limits(link))
        console.print(Text())
    for note in link.notes:
        console.print(bullet(note))


def _goodput(link: Link) -> str:
    if link.route.local:
        return f"{_host(link)} is this machine."
    if link.goodput_bytes_per_s is None:
        return f"To {_host(link)}: no limit is known, so there is no estimate."
    rate = link.goodput_bytes_per_s
    both = f"{units.format_bandwidth(rate)} ({units.format_bit_rate(rate)})"
    return f"To {_host(link)}: at most {both}\nfor one TCP connection; tightest: {link.limited_by}."


def _host(link: Link) -> str:
    return link.host if link.host == link.address else f"{link.host} ({link.address})"


def _route(link: Link) -> str:
    route = link.route
    by = f"by {route.gateway}, " if route.gateway else ""
    source = f", from {route.source}" if route.source else ""
    mtu = "" if link.mtu_bytes is None else f", MTU {link.mtu_bytes} on the way"
    inside = f", in namespace {link.netns}" if link.netns else ""
    return f"Route: {by}device {route.device}{source}{mtu}{inside}."


def _devices(devices: tuple[Device, ...]) -> Table:
    table = columns("device", "kind", "MTU", "speed", "sends now", "note")
    table.columns[0].justify = table.columns[1].justify = "left"
    for one in devices:
        speed = one.speed_bytes_per_s
        table.add_row(
            one.name,
            one.kind,
            str(one.mtu_bytes),
            "-" if speed is None else units.format_bit_rate(speed),
            units.format_bandwidth(one.load_bytes_per_s),
            "; ".join(_facts(one)),
        )
    return table


def _facts(device: Device) -> list[str]:
    facts = [] if device.above is None else [f"below {device.above}"]
    facts += [] if device.up else ["down"]
    facts += [device.detail] if device.detail else []
    return facts + [_shaping(one) for one in device.shaping]


def _shaping(one: Shaping) -> str:
    text = f"{one.by} {units.format_bit_rate(one.rate_bytes_per_s)}"
    if one.guaranteed_bytes_per_s is not None:
        text += f" ({units.format_bit_rate(one.guaranteed_bytes_per_s)} guaranteed)"
    return f"{text} per connection" if one.per_connection else text


def _limits(link: Link) -> Table:
    table = columns("limit", "rate", "in use", "payload", "goodput")
    table.columns[0].justify = "left"
    for one in link.limits:
        table.add_row(
            f"{one.by} of {one.device}",
            units.format_bandwidth(one.rate_bytes_per_s),
            units.format_bandwidth(one.load_bytes_per_s),
            f"{one.payload_bytes}/{one.packet_bytes}",
            units.format_bandwidth(one.goodput_bytes_per_s),
        )
    return table
