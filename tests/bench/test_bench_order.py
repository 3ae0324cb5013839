"""The search over sync orders, in seconds on as many processors as there are."""

from __future__ import annotations

import time

import pytest

from kvmenc.ordering import FULL, QUICK, Bounds, check
from kvmenc.ordering.explore import Explorer
from kvmenc.ordering.guests import ORDERS, Setting, case_of
from kvmenc.ordering.hostcode import host_code
from kvmenc.ordering.protocols import OWN
from tests.ordering import oracle

pytestmark = pytest.mark.bench


@pytest.mark.parametrize(("bounds", "target_s"), [(FULL, 60), (QUICK, 5)], ids=["full", "quick"])
def test_the_table(bounds: Bounds, target_s: float) -> None:
    began = time.monotonic()
    found = check(bounds)
    took_s = time.monotonic() - began
    print(f"{found.states:,} states, {found.steps:,} steps, {found.runs:,} runs: {took_s:.1f} s")
    assert took_s < target_s


def test_against_runs_made_one_by_one() -> None:
    """Seconds a run that the explorer stands for, in one process each."""
    case, code = case_of(ORDERS[1], Setting.ALONE), host_code(OWN[0], 1)
    began = time.process_time()
    *_, last = Explorer(case, code, 2).endings()
    merged_us = (time.process_time() - began) / last.bucket.runs.sum() * 1e6
    began = time.process_time()
    runs = sum(oracle.counted(OWN[0], case, 2).values())
    single_us = (time.process_time() - began) / runs * 1e6
    assert runs == last.bucket.runs.sum()
    print(f"{merged_us:.1f} us a run merged, {single_us:.1f} us one by one")
    assert merged_us < single_us
