"""What a plan says in words: why it ends as it does, and what its numbers rest on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvmenc import units
from kvmenc.plan.roads import DEFAULT_PRIVATE_RATE_PPS

if TYPE_CHECKING:
    from kvmenc.plan.parameters import Parameters
    from kvmenc.plan.precopy import Outcome
    from kvmenc.plan.profile import Profile
    from kvmenc.plan.result import Bottleneck, Guest, Verdict

__all__ = ["assumptions", "reason"]

_VCPUS_ONLY = "The curve holds what vCPUs write; what devices write is not in it."


def reason(
    outcome: Outcome, verdict: Verdict, parameters: Parameters, bottleneck: Bottleneck
) -> str:
    """Why the migration ends as it does; no full stop."""
    text = _why(outcome, parameters)
    if verdict == "does-not-converge" and bottleneck == "firmware":
        rate = units.format_page_rate(parameters.private_rate_pps)
        text += f"; the firmware, at {rate}, is the bottleneck"
    return text


def _why(outcome: Outcome, parameters: Parameters) -> str:
    pending = units.format_size(outcome.pending_bytes)
    pause = units.format_time(parameters.downtime_limit_ms)
    fits = (
        f"the {units.format_size(outcome.counters.threshold_bytes)} that a pause of {pause} allows"
    )
    if outcome.end == "time-limit":
        return f"after {units.format_time(outcome.total_ms)} there is still {pending} to send"
    if outcome.end == "no-progress":
        return (
            f"no sync leaves less than {pending} to send, over {fits}: "
            "pages are dirtied as fast as they are sent"
        )
    if parameters.time_limit_ms and outcome.total_ms > parameters.time_limit_ms:
        limit = units.format_time(parameters.time_limit_ms)
        return f"it would end only after the time limit of {limit}"
    if parameters.postcopy and outcome.postcopy_bytes:
        follows = units.format_size(outcome.postcopy_bytes)
        return f"after the first pass the guest goes on at the destination, and {follows} follow it"
    if not outcome.pending_bytes:
        return _nothing_left(outcome, pause)
    if outcome.counters.throttle_pct:
        fits += f", with vCPUs throttled by {outcome.counters.throttle_pct} %"
    longer = outcome.downtime_ms and outcome.downtime_ms > parameters.downtime_limit_ms
    only = "; QEMU only estimates that limit" if longer else ""
    return f"{pending} was left to send, within {fits}{only}"


def _nothing_left(outcome: Outcome, pause: str) -> str:
    """QEMU stops the guest then, whatever the limit is; until the first window it knows no rate."""
    counters = outcome.counters
    if not counters.bandwidth_bytes_per_ms:
        why = f"before QEMU had measured a bandwidth, so the limit of {pause} did not matter"
        return f"nothing was left to send {why}"
    allowed = units.format_size(counters.threshold_bytes)
    return f"nothing was left to send; a pause of {pause} would have allowed {allowed}"


def assumptions(guest: Guest, parameters: Parameters, profile: Profile) -> tuple[str, ...]:
    """What the numbers rest on, a sentence each."""
    lines = [
        _holds(guest),
        f"Private or shared is from: {guest.private_source}.",
        f"The rules are those of {profile.name}, {_proof(profile)}.",
    ]
    if guest.private_pages:
        lines.append(_firmware(parameters))
    if guest.zero_pages is None and guest.private_pages < guest.pages:
        lines.append("Zero pages were not looked for: every shared page is sent as normal.")
    if guest.unlogged_pages:
        lines.append(
            f"{guest.unlogged_pages:,} pages have no dirty log: sent once, and taken to stay clean."
        )
    return tuple(lines)


def _holds(guest: Guest) -> str:
    if guest.device_pages is None:
        return _VCPUS_ONLY
    pages = f"{guest.device_pages:,} pages" if guest.device_pages else "none seen"
    return f"The curve holds what vCPUs write, and an estimate of what devices do ({pages})."


def _proof(profile: Profile) -> str:
    if profile.proven:
        return f"compared with {profile.proven}"
    return f"UNPROVEN: {profile.basis}, not compared with real runs of it"


def _firmware(parameters: Parameters) -> str:
    rate_pps, batch = parameters.private_rate_pps, parameters.private_batch_pages
    how = "one by one" if batch == 1 else f"in lots of {batch:,}"
    line = f"Private pages pass the firmware {how}, {units.format_page_rate(rate_pps)}"
    if rate_pps == DEFAULT_PRIVATE_RATE_PPS:
        line += " (AMD, 350 to 450: AMDESE/qemu commit 119bb3f02c)"
    return f"{line}."
