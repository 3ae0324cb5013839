"""Plans, what-ifs, sweeps and advice, in CPU time of one core."""

from __future__ import annotations

import pytest

from kvmenc.plan import Parameters, advise, make_grid, make_plan
from kvmenc.plan.whatif import WhatIf
from tests.plan.test_speed import MANY_SYNCS, cpu_ms, of, typical

pytestmark = pytest.mark.bench

BANDWIDTHS = [mbit * 125e3 for mbit in (100, 1000, 2000, 2500, 5000, 10_000, 25_000, 40_000)]
LIMITS_MS = [125.0, 250.0, 500.0, 1000.0, 2000.0, 5000.0]


def test_one_plan() -> None:
    plan_ms = cpu_ms(lambda: make_plan(typical(32), of(32)), 20)
    edge = make_plan(MANY_SYNCS, Parameters())
    edge_ms = cpu_ms(lambda: make_plan(MANY_SYNCS, Parameters()))
    print(f"one plan: {plan_ms:.2f} ms; of {len(edge.rounds)} rounds: {edge_ms:.0f} ms")
    assert plan_ms < 50


def test_what_ifs_per_minute() -> None:
    what_if = WhatIf(typical(32))
    each_ms = cpu_ms(lambda: [what_if.converges(of(32)) for _ in range(200)]) / 200
    print(f"what-ifs: {60e3 / each_ms:,.0f} a minute ({each_ms:.2f} ms each)")
    assert each_ms < 6


def test_a_sweep_of_48_cells() -> None:
    capture = typical(32)
    sweep_ms = cpu_ms(
        lambda: make_grid(capture, BANDWIDTHS, LIMITS_MS, Parameters(private_rate_pps=20e3))
    )
    print(f"48 cells: {sweep_ms:.0f} ms")
    assert sweep_ms < 1000


def test_12_tib_over_12_gib() -> None:
    small_ms = cpu_ms(lambda: make_plan(typical(12), of(12)), 20)
    large_ms = cpu_ms(lambda: make_plan(typical(12 * 1024), of(12 * 1024)), 20)
    print(f"12 TiB over 12 GiB: {large_ms / small_ms:.2f}x")
    assert large_ms < 2 * small_ms


def test_advice() -> None:
    usual_ms = cpu_ms(lambda: advise(typical(32), of(32)))
    edge_ms = cpu_ms(lambda: advise(MANY_SYNCS, Parameters()), 2)
    print(f"advice: {usual_ms:.0f} ms; on the edge {edge_ms:.0f} ms")
