"""What no host can know.

A host sees that a page was written and what the guest announced, and at best the order of these. It
does not see page tables, nor under which key a page was written: bytes under a key look like any
others. So two guests may have shown it just the same while the one needs its page sent through the
firmware and the other raw. Then whatever a host does is wrong for one of the two.
"""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, NamedTuple

from msgspec import Struct

from kvmenc.ordering.judge import Bytes, Memory, Outcome, Twin, by_road, worst_reading
from kvmenc.ordering.pages import Act

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from kvmenc.ordering.guests import Order
    from kvmenc.ordering.judge import ToCome

__all__ = ["Contradiction", "contradictions"]

_SEEN = {
    Act.WRITE: "written",
    Act.CONVERT: "written",
    Act.ANNOUNCE: "announced",
    Act.RESET: "reset",
}


class Contradiction(Struct, frozen=True):
    """Two guests, each stopped in the middle of what it does, that no host can tell apart.

    Attributes:
        seen: what both have shown so far, in order.
        private_at_first: whether the page began private.
        by_firmware: the guest that needs the encrypted road, and how many moves it has made.
        raw: the one that needs the page sent raw, likewise.
    """

    seen: list[str]
    private_at_first: bool
    by_firmware: tuple[str, int]
    raw: tuple[str, int]


class _Stop(NamedTuple):
    order: str
    made: int
    private_at_first: bool
    seen: tuple[str, ...]
    right_roads: frozenset[bool]


def contradictions(orders: Iterable[Order]) -> list[Contradiction]:
    """All pairs of guests of these orders that need different roads and look the same."""
    stops = [stop for order in orders for start in (True, False) for stop in _stops(order, start)]
    found = []
    for one, other in combinations(stops, 2):
        same = one.seen == other.seen and one.private_at_first == other.private_at_first
        if same and {one.right_roads, other.right_roads} == {_ONLY_FIRMWARE, _ONLY_RAW}:
            first, second = (one, other) if one.right_roads == _ONLY_FIRMWARE else (other, one)
            found.append(
                Contradiction(
                    list(one.seen),
                    one.private_at_first,
                    (first.order, first.made),
                    (second.order, second.made),
                )
            )
    return sorted(found, key=lambda it: (len(it.seen), it.by_firmware[1] + it.raw[1]))


_ONLY_FIRMWARE, _ONLY_RAW = frozenset({True}), frozenset({False})


def _stops(order: Order, private: bool) -> Iterator[_Stop]:
    """The guest stopped after each number of moves, and by which roads its page arrives right."""
    page = Memory(Bytes(0).under("s", int(private)), private, "s")
    twin = Twin(page, page, kernel_private=private, lost=False)
    seen: tuple[str, ...] = ()
    for made in range(len(order.steps) + 1):
        to_come = (order.steps[made:],)
        right = frozenset(
            firmware for firmware in (True, False) if _arrives(order, twin, to_come, firmware)
        )
        yield _Stop(order.name, made, private, seen, right)
        for act in order.steps[made] if made < len(order.steps) else ():
            twin = twin.after(act, written=made + 1)
            seen += (_SEEN[act],) if act in _SEEN else ()


def _arrives(order: Order, twin: Twin, to_come: ToCome, firmware: bool) -> bool:
    """Whether the page is right at the destination if it is now sent whole, by this road."""
    page = twin.source
    target = Memory(by_road(page.bytes, firmware=firmware), page.private, "d")
    twin = Twin(page, target, twin.kernel_private, twin.lost)
    worst = worst_reading(twin, to_come, expects_old_bytes=order.expects_old_bytes)
    return worst.outcome != Outcome.WRONG
