"""Which rates the queueing disciplines of a device let through.

A connection is followed from the root as if no filter caught it. Source of all numbers: Linux
v6.12, include/uapi/linux/pkt_sched.h.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kvmenc.link.attributes import number, split, unpack
from kvmenc.link.goodput import ETHERNET_HEADER_BYTES
from kvmenc.link.messages import attribute
from kvmenc.link.model import Shaping

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kvmenc.link.messages import Message

__all__ = ["Shapes", "shapes"]

_ROOT = 0xFFFFFFFF
_INGRESS = 0xFFFFFFF1
_MAJOR = 0xFFFF0000
#: PSCHED_TICKS2NS: times of tbf and htb are in units of 64 ns (include/net/pkt_sched.h).
_TICK_S = 64e-9

# struct tc_ratespec: cell_log, linklayer, overhead, cell_align, mpu, rate.
_RATESPEC = "BBHhHI"
_TBF_QOPT = struct.Struct(f"={_RATESPEC}{_RATESPEC}III")
_HTB_OPT = struct.Struct(f"={_RATESPEC}{_RATESPEC}IIIII")
_HTB_GLOB = struct.Struct("=IIIII")
_NETEM_QOPT = struct.Struct("=IIIIII")
_NETEM_RATE = struct.Struct("=IiIi")

_TCA_TBF_PARMS, _TCA_TBF_RATE64 = 1, 4
_TCA_HTB_PARMS, _TCA_HTB_INIT, _TCA_HTB_RATE64, _TCA_HTB_CEIL64 = 1, 2, 6, 7
_TCA_FQ_RATE_ENABLE, _TCA_FQ_FLOW_MAX_RATE = 5, 7
_TCA_CAKE_BASE_RATE64, _TCA_CAKE_OVERHEAD, _TCA_CAKE_RAW = 2, 6, 12
_TCA_NETEM_RATE, _TCA_NETEM_RATE64 = 6, 8
_FQ_UNLIMITED = 0xFFFFFFFF

#: Their rates are not read.
_UNREAD = frozenset({"hfsc", "cbq", "cbs", "etf", "taprio", "ets", "qfq"})
#: Without a rate of their own; a connection is in one of their queues.
_QUEUES = frozenset({"mq", "mqprio", "multiq", "prio", "drr"})


@dataclass(frozen=True, slots=True)
class _Node:
    kind: str
    handle: int
    parent: int
    options: bytes

    @classmethod
    def of(cls, message: Message) -> _Node:
        return cls(
            attribute(message, "TCA_KIND") or "",
            message["handle"],
            message["parent"],
            attribute(message, "TCA_OPTIONS") or b"",
        )

    @property
    def name(self) -> str:
        minor = self.handle & ~_MAJOR
        return f"{self.kind} {self.handle >> 16:x}:" + (f"{minor:x}" if minor else "")


@dataclass(slots=True)
class Shapes:
    """What was found: rates, and what to know about them, in words."""

    rates: list[Shaping] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def shapes(qdiscs: Sequence[Message], classes: Sequence[Message]) -> Shapes:
    """Follow a connection through the qdiscs of one device.

    Args:
        qdiscs: RTM_NEWQDISC messages of the device.
        classes: its RTM_NEWTCLASS messages.

    Raises:
        HostError: options that are cut short.
    """
    return _Walk([*map(_Node.of, qdiscs)], [*map(_Node.of, classes)]).run()


class _Walk:
    def __init__(self, qdiscs: list[_Node], classes: list[_Node]) -> None:
        self._qdiscs = qdiscs
        self._classes = {node.handle: node for node in classes}
        self._found = Shapes()
        self._seen: set[_Node] = set()

    def run(self) -> Shapes:
        if any(node.parent == _INGRESS for node in self._qdiscs):
            self._found.notes.append("an ingress or clsact qdisc is there: policing is not read")
        for node in self._qdiscs:
            if node.parent == _ROOT:
                self._visit(node)
        return self._found

    def _visit(self, node: _Node) -> None:
        if node in self._seen:
            return
        self._seen.add(node)
        if node.kind in _UNREAD:
            self._found.notes.append(f"{node.name} may limit the rate: it is not read")
        elif node.kind == "htb":
            self._htb(node)
        else:
            rate = _RATES[node.kind](node) if node.kind in _RATES else None
            self._found.rates += [rate] if rate else []
            self._children(node)

    def _children(self, node: _Node) -> None:
        """Those of a qdisc with several queues too: a connection may be in any of them.

        Of those that the kernel made by itself only the root has children; their handles are 0.
        """
        if not node.handle and node.parent != _ROOT:
            return
        before = len(self._found.rates)
        for one in self._qdiscs:
            if one.parent & _MAJOR == node.handle:
                self._visit(one)
        if node.kind in _QUEUES and len(self._found.rates) > before:
            self._found.notes.append(f"{node.name} goes by its tightest queue")

    def _htb(self, node: _Node) -> None:
        """The default class, and those that it borrows from."""
        minor = unpack(_HTB_GLOB, split(node.options).get(_TCA_HTB_INIT, b""))[2]
        handle = node.handle | minor
        if not minor or handle not in self._classes:
            self._found.notes.append(f"{node.name} has no default class: unfiltered is unlimited")
            return
        seen = set()
        while handle in self._classes and handle not in seen:
            seen.add(handle)
            parent = self._classes[handle].parent
            rate = _htb_class(self._classes[handle], top=parent not in self._classes)
            self._found.rates.append(rate)
            handle = parent
        self._found.notes.append(f"{node.name} goes by its default class, filters are not read")
        for one in self._qdiscs:
            if one.parent == node.handle | minor:
                self._visit(one)


def _tbf(node: _Node) -> Shaping:
    options = split(node.options)
    fields = unpack(_TBF_QOPT, options.get(_TCA_TBF_PARMS, b""))
    rate = number(options, _TCA_TBF_RATE64) or fields[5]
    burst = rate * fields[13] * _TICK_S
    return Shaping(by=node.name, rate_bytes_per_s=rate, burst_bytes=burst, overhead_bytes=fields[2])


def _htb_class(node: _Node, *, top: bool) -> Shaping:
    """At the top there is nobody to borrow from: the rate counts, whatever the ceil."""
    options = split(node.options)
    fields = unpack(_HTB_OPT, options.get(_TCA_HTB_PARMS, b""))
    rate = number(options, _TCA_HTB_RATE64) or fields[5]
    ceil = number(options, _TCA_HTB_CEIL64) or fields[11]
    return Shaping(
        by=node.name.replace("htb ", "htb class "),
        rate_bytes_per_s=rate if top else ceil,
        guaranteed_bytes_per_s=rate,
        burst_bytes=rate * fields[12] * _TICK_S,
        overhead_bytes=fields[2],
    )


def _fq(node: _Node) -> Shaping | None:
    options = split(node.options)
    rate = number(options, _TCA_FQ_FLOW_MAX_RATE)
    if rate in {None, _FQ_UNLIMITED} or number(options, _TCA_FQ_RATE_ENABLE) == 0:
        return None
    return Shaping(by=f"{node.name} maxrate", rate_bytes_per_s=rate or 0, per_connection=True)


def _cake(node: _Node) -> Shaping | None:
    """Unless raw, cake counts from the IP header on and adds its overhead to that.

    TCA_CAKE_RAW is a flag: there or not (net/sched/sch_cake.c, cake_dump).
    """
    options = split(node.options)
    rate = number(options, _TCA_CAKE_BASE_RATE64)
    if not rate:
        return None
    overhead = number(options, _TCA_CAKE_OVERHEAD, signed=True) or 0
    more = 0 if _TCA_CAKE_RAW in options else overhead - ETHERNET_HEADER_BYTES
    return Shaping(by=node.name, rate_bytes_per_s=rate, overhead_bytes=more)


def _netem(node: _Node) -> Shaping | None:
    options = split(node.options[_NETEM_QOPT.size :])
    if _TCA_NETEM_RATE not in options:
        return None
    rate, overhead, *_ = unpack(_NETEM_RATE, options[_TCA_NETEM_RATE])
    rate = number(options, _TCA_NETEM_RATE64) or rate
    if not rate:
        return None
    return Shaping(by=node.name, rate_bytes_per_s=rate, overhead_bytes=overhead)


_RATES: dict[str, Callable[[_Node], Shaping | None]] = {
    "tbf": _tbf,
    "fq": _fq,
    "cake": _cake,
    "netem": _netem,
}
