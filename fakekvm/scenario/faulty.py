"""The faults of a scenario: what goes wrong with which calls."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fakekvm.faults import DEATH, BadFault, Fault, Faults
from fakekvm.requestnames import request_names
from fakekvm.scenario.gfns import ALL, Gfns
from fakekvm.scenario.kinds import BYTES, GFNS, SECONDS, Kind, number, whole
from fakekvm.scenario.model import Phase
from fakekvm.scenario.phases import PHASES, read_does

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

    from fakekvm.guests import Step
    from fakekvm.host import Host
    from fakekvm.scenario.tables import Table
    from fakekvm.vm import Vm

__all__ = ["read_faults"]

_DEATH = "death"
_ERRORS = {_DEATH: DEATH} | {name: number for number, name in errno.errorcode.items()}
_CALLS = whole(1, 1 << 53)
#: What a guest can do before a call: none of it exits, or takes time.
_BEFORE = tuple(name for name in PHASES if name not in ("port-out", "rest", "halt", "bursts"))
_DOES_NOTHING = "it makes nothing go wrong"


def read_faults(scenario: Table, host: Host) -> tuple[Fault, ...]:
    """The tables [[fault]], if there are any.

    Raises:
        ScenarioError: something is wrong with one.
    """
    return tuple(_fault(table, host) for table in scenario.tables("fault", least=0))


def _fault(table: Table, host: Host) -> Fault:
    fault = Fault(
        request=table.take("request", _request(host), None),
        above_bytes=table.take("above", BYTES, None),
        error=table.take("error", _ERROR, 0),
        delay_s=table.take("delay", SECONDS, 0.0),
        before=_before(table),
        skip=table.take("skip", whole(0, 1 << 53), 0),
        every=table.take("every", _CALLS, 1),
        times=table.take("times", _CALLS, None),
        chance=table.take("chance", number(0, 1), 1.0),
    )
    table.done()
    if not (fault.error or fault.delay_s or fault.before):
        raise table.wrong(None, _DOES_NOTHING, "a key error or delay, or tables before")
    try:
        Faults([fault], host)
    except BadFault as error:
        raise table.wrong("delay", str(error), "request = a command of the firmware") from None
    return fault


def _request(host: Host) -> Kind[str | int]:
    names = tuple(request_names(host))

    def read(value: Any) -> str | int:  # noqa: ANN401 - whatever stands in the file
        if isinstance(value, str) and value in names:
            return value
        return whole(0, (1 << 32) - 1).read(value)

    return Kind("the kernel's name of an ioctl that this host has, or its number", read, names)


def _read_error(value: Any) -> int:  # noqa: ANN401 - whatever stands in the file
    if not isinstance(value, str):
        raise TypeError
    if value not in _ERRORS:
        raise ValueError
    return _ERRORS[value]


_ERROR = Kind(f'an errno by name, like "ENOMEM", or "{_DEATH}"', _read_error, tuple(_ERRORS))


def _before(table: Table) -> _Before | tuple[()]:
    tables = table.tables("before", least=0)
    return _Before(tuple(_phase(one) for one in tables)) if tables else ()


def _phase(table: Table) -> Phase:
    does = read_does(table, _BEFORE)
    gfns: Gfns = table.take("gfns", GFNS, ALL)
    steps = table.take("steps", _CALLS, None)
    if does.endless and steps is None:
        raise table.wrong("steps", "it is missing, so that it never ends", "a number of steps")
    table.done()
    return Phase(does=does, gfns=gfns, max_steps=steps)


@dataclass(frozen=True, slots=True)
class _Before:
    """What a guest does before a call: each phase once, on the memory that there is by then."""

    phases: tuple[Phase, ...]

    def __call__(self, vm: Vm, rng: np.random.Generator) -> Iterator[Step]:
        memory = vm.writable_gfns()
        for phase in self.phases:
            yield from phase.steps(phase.gfns.of(memory), rng)
