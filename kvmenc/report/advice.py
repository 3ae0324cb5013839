"""How sure a plan is, and what to change, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvmenc import units

if TYPE_CHECKING:
    from kvmenc.plan.result import Advice, Change, Interval, Tried

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
    "only-way": "Postcopy is the only way.",
    "no-help": "None of these does it.",
    "impossible": "None of these does it, and for encrypted pages there is no postcopy.",
}


def interval_words(interval: Interval) -> str:
    """Between what times it will be, how sure it is to converge, and what that rests on."""
    rests = {
        "windows": ", as its windows differ",
        "one-window": "; it has one window, so how much the guest itself changes is not known",
    }[interval.basis]
    share = (
        f"{interval.probability_converges * 100:.0f} % of {interval.plans} plans converge "
        f"(of guests that the capture might as well have seen{rests})"
    )
    edge = "ON A KNIFE EDGE: " if interval.knife_edge else ""
    if interval.low_ms is None or interval.high_ms is None:
        return f"{edge}{share}."
    low, high = units.format_time(interval.low_ms), units.format_time(interval.high_ms)
    span = f"in {low} to {high}" if interval.low_ms else f"within {high}"
    return f"{edge}{share}, nine tenths of them {span}."


def advice_words(advice: Advice) -> tuple[str, list[str]]:
    """A heading, and a line for each change."""
    if advice.kind == "margin" and not advice.changes:
        return "It converges whatever the limits.", []
    if advice.kind == "margin":
        return "It still converges with less, each alone:", [_margin(one) for one in advice.changes]
    lines = [_remedy(one) for one in advice.changes]
    lines += [_capability(one) for one in advice.capabilities]
    if advice.postcopy != "not-needed":
        lines.append(_POSTCOPY[advice.postcopy])
    return "What would make it converge, each alone:", lines


def _value(change: Change, value: float) -> str:
    return _FORMATS[change.unit](value)


def _remedy(change: Change) -> str:
    name = _NAMES[change.knob]
    model = f" ({_MODEL})" if change.knob == "throttle" else ""
    if change.least is None or change.total_time_ms is None or change.downtime_ms is None:
        return f"no {name} up to {_value(change, change.looked_to)} does it{model}"
    times = (
        f"{units.format_time(change.total_time_ms)} in all, "
        f"paused for {units.format_time(change.downtime_ms)}"
    )
    typed = f" ({change.options})" if change.options else model
    return f"{name} of about {_value(change, change.least)}{typed}: {times}{_doubt(change)}"


def _capability(tried: Tried) -> str:
    if tried.total_time_ms is None or tried.downtime_ms is None:
        return f"{tried.capability} does not do it"
    throttled = f", vCPUs throttled by {tried.throttle_percent} %" if tried.throttle_percent else ""
    return (
        f"{tried.capability} ({tried.options}): {units.format_time(tried.total_time_ms)} in all, "
        f"paused for {units.format_time(tried.downtime_ms)}{throttled}"
    )


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
