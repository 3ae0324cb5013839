"""What was claimed in the review of 2019, and for which guests the search finds it true.

The claims are from the thread of "[PATCH v2 04/13] kvm: add support to sync the page encryption
state bitmap": Brijesh Singh's list, 2019-07-16, and the remarks that it answers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from msgspec import Struct

from kvmenc.ordering.guests import ORDERS, Setting
from kvmenc.ordering.pages import Act
from kvmenc.ordering.protocols import ASKED_ONCE, Clearing, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from kvmenc.ordering.guests import Order

__all__ = ["Answer", "Tested", "answers"]

_DIRTY_FIRST = Protocol(flips_dirty=False)
_PRIVATE_FIRST = Protocol(private_first=True, flips_dirty=False)
_CLEARED_LATE = Protocol(flips_dirty=False, clearing=Clearing.BEFORE_READING)


class Tested(Struct, frozen=True):
    """A protocol against some guests.

    Attributes:
        protocol: its name.
        holds_for: orders of guests of which no run ended wrong.
        fails_for: orders of which some did.
    """

    protocol: str
    holds_for: list[str]
    fails_for: list[str]


class Answer(Struct, frozen=True):
    """What became of a claim.

    Attributes:
        who, claim: whose it is, in short.
        verdict: ``holds`` (for all guests), ``does not hold``, or ``depends on the protocol``.
        because: why.
        tested: what was looked at.
    """

    who: str
    claim: str
    verdict: str
    because: str
    tested: list[Tested]


class _Claim(NamedTuple):
    who: str
    claim: str
    because: str
    protocols: tuple[Protocol, ...]
    concerns: Callable[[Order], bool]
    setting: Setting | None = None


def _flips(order: Order) -> bool:
    return any(Act.ANNOUNCE in acts for acts in order.steps)


def _writes_after_announcing(order: Order) -> bool:
    """And only then."""
    return _flips(order) and order.announces_first and not order.expects_old_bytes


def _ends_unwritten(order: Order) -> bool:
    return _flips(order) and order.steps[-1] != (Act.WRITE,)


#: Another vCPU that writes while the first converts breaks the guest's promise.
_SETTINGS = [it for it in Setting if it not in {Setting.SECOND_WRITER, Setting.PAGE_TABLE}]

_CLAIMS = (
    _Claim(
        "Gilbert",
        "always sync the encrypted bitmap before the dirty bitmap",
        "a flip and a write between the two: the write is used up, the flip not yet known",
        (_PRIVATE_FIRST,),
        _flips,
    ),
    _Claim(
        "Singh",
        "I don't think order matters much",
        "it does, unless flipped pages are made dirty; then it does not",
        (_DIRTY_FIRST, _PRIVATE_FIRST, Protocol(), Protocol(private_first=True)),
        _writes_after_announcing,
    ),
    _Claim(
        "Singh (a), (b)",
        "query the bitmap before migration; transfer the pages based on it",
        "a state that was asked for once says nothing of later flips",
        (ASKED_ONCE,),
        lambda _: True,
    ),
    _Claim(
        "Singh (c)",
        "a change of state dirties page-table memory, which forces a resync",
        "what becomes dirty is the page table's page, which arrives right; not the page that"
        " flipped, which fares as it does without",
        (_DIRTY_FIRST,),
        _flips,
        Setting.PAGE_TABLE,
    ),
    _Claim(
        "Singh (d)",
        "contents not changed: not sent again, and that is OK",
        "OK where nothing may be expected of such a page; not where it was converted in place"
        " before the announcement, nor if the guest flips back and expects its old bytes",
        (_DIRTY_FIRST,),
        _ends_unwritten,
    ),
    _Claim(
        "Singh (e)",
        "contents changed after the state: dirty, and sent again by the resynced state",
        "only with dirty first, and only if CLEAR does not come after the private state was read",
        (_DIRTY_FIRST, _CLEARED_LATE, _PRIVATE_FIRST),
        _writes_after_announcing,
    ),
)


def answers(wrong: Mapping[tuple[str, str, str], int]) -> list[Answer]:
    """Each claim, judged.

    Args:
        wrong: by names of protocol, order and setting, how many runs ended wrong; cells that were
            not explored are absent, and claims without any cell are left out.
    """
    return [answer for answer in (_answer(claim, wrong) for claim in _CLAIMS) if answer]


def _answer(claim: _Claim, wrong: Mapping[tuple[str, str, str], int]) -> Answer | None:
    tested = [it for it in (_test(claim, one, wrong) for one in claim.protocols) if it]
    if not tested:
        return None
    holds = {not it.fails_for for it in tested}
    verdict = "does not hold" if holds == {False} else "holds"
    if len(holds) > 1:
        verdict = "depends on the protocol"
    return Answer(claim.who, claim.claim, verdict, claim.because, tested)


def _test(
    claim: _Claim, protocol: Protocol, wrong: Mapping[tuple[str, str, str], int]
) -> Tested | None:
    found = dict(_cells(claim, protocol, wrong))
    if not found:
        return None
    holds = [name for name, number in found.items() if not number]
    return Tested(protocol.name, holds, [name for name in found if name not in holds])


def _cells(
    claim: _Claim, protocol: Protocol, wrong: Mapping[tuple[str, str, str], int]
) -> Iterator[tuple[str, int]]:
    settings = [claim.setting] if claim.setting else _SETTINGS
    for order in filter(claim.concerns, ORDERS):
        keys = [(protocol.name, order.name, setting) for setting in settings]
        cells = [wrong[key] for key in keys if key in wrong]
        if cells:
            yield order.name, sum(cells)
