"""How long plans take, in CPU time, with room for a slow machine; `make bench` prints figures."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from kvmenc.plan import Parameters, advise, make_plan
from kvmenc.plan.whatif import WhatIf
from tests.plan.guests import GIB_PAGES, guest

if TYPE_CHECKING:
    from collections.abc import Callable

    from kvmenc.capture import Capture

pytestmark = pytest.mark.alone


def cpu_ms(job: Callable[[], object], times: int = 5) -> float:
    """The best of a few."""
    best = float("inf")
    for _ in range(times):
        start = time.process_time()
        job()
        best = min(best, time.process_time() - start)
    return best * 1000


def typical(gib: int) -> Capture:
    """A tenth private, a third zero; a curve of 40 points, of the same share of all pages."""
    npages = gib * GIB_PAGES
    private = npages // 10
    points = [
        (250.0 * n, round(private * n**0.6 / 1000), round(npages * n**0.6 / 1000))
        for n in range(1, 41)
    ]
    return guest(npages, private, points, npages // 3)


#: Just converges: close to the edge every slice is followed by a sync.
MANY_SYNCS = guest(4 * GIB_PAGES, 0, [(1000, 0, 32_000)])


def of(gib: int) -> Parameters:
    """Everything grows with the guest."""
    return Parameters(gib * 100e6, private_rate_pps=gib * 20_000)


def test_a_plan_takes_under_50_ms() -> None:
    assert cpu_ms(lambda: make_plan(typical(32), of(32))) < 50


def test_a_plan_of_hundreds_of_syncs_takes_a_fraction_of_a_second() -> None:
    plan = make_plan(MANY_SYNCS, Parameters())
    assert len(plan.rounds) > 250
    assert cpu_ms(lambda: make_plan(MANY_SYNCS, Parameters()), 2) < 400


def test_a_what_if_takes_under_6_ms() -> None:
    what_if = WhatIf(typical(32))
    assert cpu_ms(lambda: [what_if.converges(of(32)) for _ in range(50)]) / 50 < 6


def test_a_guest_a_thousand_times_larger_takes_less_than_twice_as_long() -> None:
    small, large = typical(12), typical(12 * 1024)
    small_ms = cpu_ms(lambda: make_plan(small, of(12)), 10)
    assert cpu_ms(lambda: make_plan(large, of(12 * 1024)), 10) < 2 * small_ms


def test_advice_takes_seconds_at_most_even_on_the_edge() -> None:
    assert cpu_ms(lambda: advise(MANY_SYNCS, Parameters()), 1) < 10_000
