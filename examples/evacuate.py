"""Plan how a host is emptied: how many guests at once over one link, in which order, and who stays.

Guests that migrate together share the link and the firmware, so each is capped to its share: the
more at once, the longer each takes, and the fewer converge. Every number of lanes is planned; the
one that gets most guests away, and then the quickest, wins. In each lane one guest follows the
other, the longest first.

    python examples/evacuate.py *.capture --link 10Gbit --private-rate 20000pps
    python examples/evacuate.py                     # made-up guests

Exit status 1 if a guest must stay; 4: an input cannot be read.
"""

from __future__ import annotations

import argparse
import heapq
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

from kvmenc.capture import Capture, load_capture
from kvmenc.errors import KvmencError
from kvmenc.plan import Parameters, Plan, advise, own_profile, plan_many
from kvmenc.plan.described import Described
from kvmenc.report.advice import advice_words
from kvmenc.units import (
    format_size,
    format_time,
    parse_bandwidth_bytes_per_s,
    parse_page_rate_pps,
    parse_time_ms,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Executor

LANES = (1, 2, 3, 4, 6, 8)


@dataclass(frozen=True)
class Evacuation:
    """All guests, so many at once.

    Attributes:
        lanes: how many.
        going: those that converge: when each starts, and its plan.
        staying: names of the others.
        total_ms: until the last has gone.
    """

    lanes: int
    going: dict[str, tuple[float, Plan]] = field(default_factory=dict)
    staying: list[str] = field(default_factory=list)
    total_ms: float = 0.0


def evacuate(guests: dict[str, Capture], whole: Parameters, lanes: int, by: Executor) -> Evacuation:
    """Plan every guest with its share, and put those that converge into lanes."""
    each = [share_of(whole, lanes)] * len(guests)
    plans = dict(zip(guests, plan_many(list(guests.values()), each, by), strict=True))
    times = {name: it.total_time_ms for name, it in plans.items() if it.total_time_ms is not None}
    free_at_ms = [0.0] * lanes
    going = {}
    for name in sorted(times, key=lambda name: -times[name]):
        start_ms = heapq.heappop(free_at_ms)
        going[name] = start_ms, plans[name]
        heapq.heappush(free_at_ms, start_ms + times[name])
    return Evacuation(lanes, going, [name for name in plans if name not in times], max(free_at_ms))


def share_of(whole: Parameters, lanes: int) -> Parameters:
    """What one of so many migrations may take."""
    return Parameters(
        max_bandwidth_bytes_per_s=whole.link / lanes,
        link_bytes_per_s=whole.link / lanes,
        downtime_limit_ms=whole.downtime_limit_ms,
        private_rate_pps=whole.private_rate_pps / lanes,
    )


def print_choices(choices: Sequence[Evacuation], best: Evacuation) -> None:
    """One line for each number of lanes."""
    print("at once  go  stay        time  longest pause")
    for one in choices:
        pause_ms = max((plan.downtime_ms or 0 for _, plan in one.going.values()), default=0)
        row = f"{one.lanes:7}  {len(one.going):2}  {len(one.staying):4}  "
        row += f"{format_time(one.total_ms):>10}  {format_time(pause_ms):>13}"
        print(row + ("  <- best" if one is best else ""))


def print_order(best: Evacuation) -> None:
    """Who starts when."""
    print("\n  starts at      takes     paused        sent  guest")
    for name, (start_ms, plan) in sorted(best.going.items(), key=lambda item: item[1][0]):
        took, paused = format_time(plan.total_time_ms or 0), format_time(plan.downtime_ms or 0)
        sent = format_size(plan.totals.bytes.total)
        starts = format_time(start_ms) if start_ms else "now"
        print(f"{starts:>11}  {took:>9}  {paused:>9}  {sent:>10}  {name}")


def print_staying(guests: dict[str, Capture], best: Evacuation, whole: Parameters) -> None:
    """Who does not converge with its share, and what would change that."""
    for name in best.staying:
        print(f"\n{name} stays.")
        guest = guests[name]
        advice = advise(guest, share_of(whole, best.lanes), own_profile(guest))
        heading, lines = advice_words(advice)
        print("\n".join([heading, *(f"- {line}" for line in lines)]))


def loaded(paths: Sequence[Path]) -> dict[str, Capture]:
    """By the names of their files; with folders where two files have one name."""
    stems = [path.stem for path in paths]
    alike = len({*stems}) < len(stems)
    return {str(path) if alike else path.stem: load_capture(path) for path in paths}


def made_up() -> dict[str, Capture]:
    """A host with guests from idle to too busy."""
    rates = {"idle": 0.5e6, "web": 8e6, "mail": 20e6, "build": 120e6, "database": 2.5e9}
    return {
        name: Described(
            memory_bytes=4 * 2**30, zero_share=0.3, dirty_bytes_per_s=rate, working_set_bytes=2**30
        ).capture()
        for name, rate in rates.items()
    }


def wishes(args: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Plan how a host is emptied.")
    parser.add_argument("captures", nargs="*", type=Path, help="of `kvmenc capture`")
    parser.add_argument("--link", type=parse_bandwidth_bytes_per_s, default="10Gbit")
    parser.add_argument("--private-rate", type=parse_page_rate_pps, default="20000pps")
    parser.add_argument("--downtime-limit", type=parse_time_ms, default="300ms")
    return parser.parse_args(args)


def main(args: Sequence[str]) -> int:
    """Plan, choose, print."""
    try:
        wished = wishes(args)
        guests = loaded(wished.captures)
    except KvmencError as error:
        print(f"evacuate: {error}", file=sys.stderr)
        return error.exit_code
    if not guests:
        print("evacuate: no captures are given: these guests are made up", file=sys.stderr)
        guests = made_up()
    whole = Parameters(
        link_bytes_per_s=wished.link,
        downtime_limit_ms=wished.downtime_limit,
        private_rate_pps=wished.private_rate,
    )
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("forkserver")) as by:
        lanes = sorted({min(count, len(guests)) for count in LANES})
        choices = [evacuate(guests, whole, count, by) for count in lanes]
    best = min(choices, key=lambda it: (len(it.staying), it.total_ms))
    print_choices(choices, best)
    print_order(best)
    print_staying(guests, best, whole)
    return 1 if best.staying else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
