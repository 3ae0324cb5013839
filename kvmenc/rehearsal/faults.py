"""What goes wrong in a rehearsal, and when: so that it shows that no guest is lost by it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from kvmenc.errors import InputError, KvmencError

if TYPE_CHECKING:
    from kvmenc.rehearsal.records import PagesRecord

__all__ = ["Broken", "Fault", "FaultKind", "Striker", "parse_fault"]

_STOPPED = "stopped"
_DEFAULT_ROUND = 2


class FaultKind(StrEnum):
    """What goes wrong."""

    LINK_CUT = "link-cut"  # a record is lost, and the line with it
    CANCEL = "cancel"  # the user wants the guest to stay
    SEND_ERROR = "send-error"  # the source's firmware refuses to send a page
    DESTINATION_REFUSES = "destination-refuses"  # a page is not as it was sent


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong, and in which round.

    Attributes:
        kind: what.
        round: counted from 1, as a ledger's; None: in that of the stopped guest.
    """

    kind: FaultKind
    round: int | None = _DEFAULT_ROUND

    def __str__(self) -> str:
        return f"{self.kind}@{self.round or _STOPPED}"


class Broken(KvmencError):
    """The migration is over: cancelled, or the line is cut."""


def parse_fault(text: str) -> Fault:
    """``link-cut``, ``cancel@3``, ``send-error@stopped``.

    Raises:
        InputError: no such fault, or no round.
    """
    name, _, when = text.partition("@")
    if name not in list(FaultKind):
        raise InputError(f"no fault {name[:40]!r}: there are {', '.join(FaultKind)}")
    if "@" not in text:
        return Fault(FaultKind(name))
    if when == _STOPPED:
        return Fault(FaultKind(name), None)
    if not re.fullmatch("[0-9]{1,5}", when) or not 1 <= int(when) <= 10_000:
        raise InputError(f"{text[:40]!r}: after @ comes a round, 1, 2, ..., or {_STOPPED}")
    return Fault(FaultKind(name), int(when))


class Striker:
    """Lets a fault strike, once, when its round has come. Rounds without a page do not count.

    Args:
        fault: None: nothing goes wrong.

    Attributes:
        struck: it has.
    """

    def __init__(self, fault: Fault | None) -> None:
        self._fault = fault
        self._round, self._stopped, self._any_sent = 0, False, True
        self.struck = False

    def round_begins(self, *, stopped: bool) -> None:
        """After a sync."""
        self._round += self._any_sent
        self._any_sent, self._stopped = False, stopped

    def carrying(self) -> None:
        """Pages are about to be read.

        Raises:
            Broken: the user cancels.
        """
        self._any_sent = True
        if self._strikes(FaultKind.CANCEL):
            raise Broken("cancelled by the user")

    def odd_bytes(self) -> int:
        """How many bytes too few the firmware is to be asked for: a length that it refuses."""
        return int(self._strikes(FaultKind.SEND_ERROR))

    def on_the_line(self, record: PagesRecord) -> None:
        """A record is about to be put on the line.

        Raises:
            Broken: it is cut.
        """
        if self._strikes(FaultKind.LINK_CUT):
            raise Broken("the line to the destination is cut")
        if record.encrypted.size and self._strikes(FaultKind.DESTINATION_REFUSES):
            record.transports[0, 0] ^= 1

    def _strikes(self, kind: FaultKind) -> bool:
        fault = self._fault
        if fault is None or self.struck or fault.kind != kind:
            return False
        now = self._stopped if fault.round is None else self._round >= fault.round
        self.struck = now
        return now
