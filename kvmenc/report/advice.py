"""How sure a plan is, and what to change, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvmenc import units

if TYPE_CHECKING:
    from kvmenc.plan.result import Advice, Change, Interval

__all__ = ["advice_words", "interval_words"]

_NAMES = {
    "downtime-limit": "downtime limit",
    "max-bandwidth": "max-bandwidth",
    "link": "link",
    "private-rate": "firmware rate",
    "throttle": "vCPU throttle",
}
_FORMATS = {
    "ms": units.format_time,
    "bytes/s": units.format_bandwidth,
    "pps": units.format_page_rate,
    "%": "{:g} %".format,
}
_MODEL = "a model: throttled from the start, writes slow in proportion"
_POSTCOPY = {
    "only-way": "None of these does it: postcopy is the only way (--postcopy).",
    "impossible": "None of these does it, and for encrypted pages there is no postcopy.",
}


def interval_words(interval: Interval) -> str:
    """Between what times it will be, how sure it is to converge, and what that rests on."""
    rests = {
        "windows": "on how the guest's writes differed between the capture's windows",
        "one-window": "on one window: how much the guest itself changes is not known",
    }[interval.basis]
    share = f"{interval.probability_converges:.0%} of {interval.plans} plans converge"
    edge = "ON A KNIFE EDGE: " if interval.knife_edge else ""
    if interval.low_ms is None or interval.high_ms is None:
        return f"{share} (that rests {rests})."
    low, high = units.format_time(interval.low_ms), units.format_time(interval.high_ms)
    return f"{edge}{share}, nine tenths of them in {low} to {high} (that rests {rests})."


def advice_words(advice: Advice) -> tuple[str, list[str]]:
    """A heading, and a line for each change."""
    if advice.kind == "margin":
        return "It still converges with less, each alone:", [_margin(one) for one in advice.changes]
    lines = [_remedy(one) for one in advice.changes]
    if advice.postcopy != "not-needed":
        lines.append(_POSTCOPY[advice.postcopy])
    return "What would make it converge, each alone:", lines


def _value(change: Change, value: float) -> str:
    return _FORMATS[change.unit](value)


def _remedy(change: Change) -> str:
    name = _NAMES[change.knob]
    model = f" ({_MODEL})" if change.knob == "throttle" else ""
    if change.least is None or change.total_time_ms is None or change.downtime_ms is None:
        return f"no {name} up to {_value(change, change.looked_to)}{model}"
    times = (
        f"{units.format_time(change.total_time_ms)} in all, "
        f"paused for {units.format_time(change.downtime_ms)}"
    )
    typed = f" ({change.options})" if change.options else model
    return f"{name} of about {_value(change, change.least)}{typed}: {times}{_doubt(change)}"


def _margin(change: Change) -> str:
    name, now = _NAMES[change.knob], _value(change, change.now)
    if change.least is None or change.least == change.now:
        return f"{name}: hardly any less than {now}; it is on the edge"
    least = _value(change, change.least)
    if change.least == change.looked_from:
        return f"{name}: even {least} (now {now})"
    return f"{name}: down to about {least} (now {now}){_doubt(change)}"


def _doubt(change: Change) -> str:
    return "" if change.sure else "; near the edge, so not sure"
