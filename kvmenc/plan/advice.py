"""What would make a migration converge, one change at a time; or how far it is from the edge."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from kvmenc import units
from kvmenc.plan.least import figures, least_good
from kvmenc.plan.profile import QEMU_10_0
from kvmenc.plan.result import Advice, Change, Tried
from kvmenc.plan.whatif import WhatIf, converges

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from kvmenc.capture import Capture
    from kvmenc.plan.parameters import Parameters
    from kvmenc.plan.profile import Profile
    from kvmenc.plan.result import Knob, Postcopy, Unit

    #: A migration with a value: its parameters, and the guest's speed.
    _Changed = tuple[Parameters, float]

__all__ = ["advise"]

#: A margin beyond a factor of a thousand is not looked into.
_DEEPEST = 1e-3
#: Nor one below 1 ms, 1 B/s or 1 page/s.
_LEAST = 1.0
#: A figure this much less must not converge, or the answer is not sure.
_LESS = 0.9
#: Nearer to the value now no figure is of use.
_NEARLY = 0.99
#: More is no sensible answer: a guest paused for a minute, 400 Gbit/s, 4 GB/s encrypted.
_MOST_DOWNTIME_MS = 60e3
_MOST_BANDWIDTH_BYTES_PER_S = 50e9
_MOST_PRIVATE_RATE_PPS = 1e6
#: QEMU's own limit (QEMU 10.0, migration/options.c, DEFAULT_MIGRATE_MAX_CPU_THROTTLE).
_MOST_THROTTLE_PCT = 99


def _typed_time(ms: float) -> str:
    return f"{ms:.9g}ms" if ms < 1000 else f"{ms / 1000:.9g}s"


def _typed_rate(bytes_per_s: float) -> str:
    return units.format_bandwidth(bytes_per_s).replace(" ", "")


def _typed_pages(pps: float) -> str:
    return f"{pps:.9g}pps"


@dataclass(frozen=True, slots=True)
class _Notation:
    """How values of a kind are typed on the command line, and read back.

    Attributes:
        unit: of the values.
        typed: as an option's argument.
        read: what it is read as.
    """

    unit: Unit
    typed: Callable[[float], str]
    read: Callable[[str], float]


_TIME = _Notation("ms", _typed_time, units.parse_time_ms)
_RATE = _Notation("bytes/s", _typed_rate, units.parse_bandwidth_bytes_per_s)
_PAGES = _Notation("pps", _typed_pages, units.parse_page_rate_pps)


@dataclass(frozen=True, slots=True)
class _Setting:
    """Something that can be changed.

    Attributes:
        knob: its name.
        unit: of its values.
        now: its value now.
        values: which are looked at, growing.
        changed: the migration with a value.
        options: how that is typed.
    """

    knob: Knob
    unit: Unit
    now: float
    values: Sequence[float]
    changed: Callable[[float], _Changed]
    options: Callable[[float], str] | None = None


def advise(
    capture: Capture,
    parameters: Parameters,
    profile: Profile = QEMU_10_0,
    update: Callable[[float], object] = lambda _share: None,
) -> Advice:
    """Look for the least value of each parameter that converges, the others as they are.

    If the migration converges already, that is how far each may fall.

    Args:
        capture: the guest.
        parameters: of the migration.
        profile: whose rules are followed.
        update: told which share of what may help has been tried.
    """
    what_if = WhatIf(capture, profile)
    ends = what_if.converges(parameters)
    if parameters.postcopy and ends:
        return Advice(kind="margin", changes=(), postcopy="not-needed")  # it waits for no threshold
    settings = list(_settings(capture, parameters, ends=ends))
    changes = []
    for setting in settings:
        changes.append(_change(what_if, setting, ends=ends))
        update(len(changes) / (len(settings) + 1))
    capabilities = () if ends else tuple(_capabilities(what_if, parameters))
    update(1.0)
    helped = ends or any(change.least is not None for change in changes)
    working = {it.capability for it in capabilities if it.total_time_ms is not None}
    return Advice(
        kind="margin" if ends else "to-converge",
        changes=tuple(changes),
        capabilities=capabilities,
        postcopy=_postcopy(capture, working, helped=helped),
    )


def _capabilities(what_if: WhatIf, p: Parameters) -> Iterator[Tried]:
    """What QEMU itself can do about it."""
    if not p.auto_converge:
        yield _tried(what_if, replace(p, auto_converge=True), "auto-converge")
    if not p.postcopy and not what_if.capture.private_pages:
        yield _tried(what_if, replace(p, postcopy=True), "postcopy")


def _tried(
    what_if: WhatIf, p: Parameters, capability: Literal["auto-converge", "postcopy"]
) -> Tried:
    outcome = what_if.outcome(p)
    ends = converges(outcome, p)
    return Tried(
        capability=capability,
        options=f"--{capability}",
        total_time_ms=outcome.total_ms if ends else None,
        downtime_ms=outcome.downtime_ms if ends else None,
        throttle_percent=outcome.counters.throttle_pct,
    )


def _postcopy(capture: Capture, working: Collection[str], *, helped: bool) -> Postcopy:
    if helped or "auto-converge" in working:
        return "not-needed"
    if capture.private_pages:
        return "impossible"
    return "only-way" if "postcopy" in working else "no-help"


def _settings(capture: Capture, p: Parameters, *, ends: bool) -> Iterator[_Setting]:
    """What can be changed; the last value is good if the migration converges already."""
    yield _plain(p, "downtime-limit", "downtime_limit_ms", _TIME, _MOST_DOWNTIME_MS, ends=ends)
    if p.link_bytes_per_s is None or p.max_bandwidth_bytes_per_s < p.link or ends:
        # QEMU's cap, as far as the network goes.
        most = p.link_bytes_per_s or _MOST_BANDWIDTH_BYTES_PER_S
        yield _plain(p, "max-bandwidth", "max_bandwidth_bytes_per_s", _RATE, most, ends=ends)
    if p.link_bytes_per_s is not None:
        yield _link(p, ends=ends)
    if capture.private_pages:
        most = _MOST_PRIVATE_RATE_PPS
        yield _plain(p, "private-rate", "private_rate_pps", _PAGES, most, ends=ends)
    if not ends:
        throttles = range(1, _MOST_THROTTLE_PCT + 1)
        yield _Setting("throttle", "%", 0.0, throttles, lambda pct: (p, 1 - pct / 100))


def _plain(
    p: Parameters, knob: Knob, field: str, notation: _Notation, most: float, *, ends: bool
) -> _Setting:
    """One parameter, the others as they are; its option is called as the knob."""
    now = getattr(p, field)
    return _Setting(
        knob,
        notation.unit,
        now,
        _values(now, most, notation, ends=ends),
        lambda value: (_with(p, field, value), 1.0),
        lambda value: f"--{knob} {notation.typed(value)}",
    )


def _with(p: Parameters, field: str, value: float) -> Parameters:
    changed: dict[str, Any] = {field: value}
    return replace(p, **changed)


def _link(p: Parameters, *, ends: bool) -> _Setting:
    """The network; a faster one with a cap as high."""
    now, cap = p.link, p.max_bandwidth_bytes_per_s

    def changed(rate: float) -> _Changed:
        faster = max(cap, rate) if rate > now else cap
        return replace(p, max_bandwidth_bytes_per_s=faster, link_bytes_per_s=rate), 1.0

    def options(rate: float) -> str:
        raised = f" --max-bandwidth {_typed_rate(rate)}" if rate > max(now, cap) else ""
        return f"--link {_typed_rate(rate)}{raised}"

    values = _values(now, _MOST_BANDWIDTH_BYTES_PER_S, _RATE, ends=ends)
    return _Setting("link", _RATE.unit, now, values, changed, options)


def _values(
    now: float,
    most: float,
    notation: _Notation,
    *,
    ends: bool,
) -> list[float]:
    """What is looked at: figures below the value now and itself, or above; as they read back."""
    low, high = (max(now * _DEEPEST, _LEAST), now * _NEARLY) if ends else (now, most)
    looked = figures(low, high) if low < high else ()
    values = [notation.read(notation.typed(value)) for value in looked]
    return [*values, now] if ends else values


def _change(what_if: WhatIf, setting: _Setting, *, ends: bool) -> Change:
    """Look for the edge of one parameter."""

    def good(value: float) -> bool:
        return what_if.converges(*setting.changed(value))

    values = setting.values
    looked = (values[0], values[-1]) if values else (setting.now, setting.now)
    found = values and least_good(lambda i: good(values[i]), len(values), from_above=ends)
    if not found:
        return Change(
            knob=setting.knob,
            unit=setting.unit,
            now=setting.now,
            looked_from=looked[0],
            looked_to=looked[1],
        )
    index, sure = found
    least = values[index]
    outcome = what_if.outcome(*setting.changed(least))
    return Change(
        knob=setting.knob,
        unit=setting.unit,
        now=setting.now,
        least=least,
        looked_from=looked[0],
        looked_to=looked[1],
        sure=sure and not (ends and index == 0) and not good(least * _LESS),
        options=setting.options(least) if setting.options and least != setting.now else None,
        total_time_ms=outcome.total_ms,
        downtime_ms=outcome.downtime_ms,
    )
