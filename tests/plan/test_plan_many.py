from __future__ import annotations

import multiprocessing
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor

import pytest

from kvmenc.plan import Parameters, make_plan, plan_many
from tests.plan.guests import GIB_PAGES, guest
from tests.plan.test_precopy import AMD_STORY, IDLE

CAPTURES = [AMD_STORY, guest(GIB_PAGES, GIB_PAGES // 2, [(100, 5, 900)], zero=10)] * 10
PARAMETERS = [Parameters(downtime_limit_ms=100.0 * (1 + i % 7)) for i in range(len(CAPTURES))]


def processes() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("forkserver"))


@pytest.mark.parametrize("make", [lambda: ThreadPoolExecutor(2), processes])
def test_a_fleet_is_planned_in_order_on_any_executor(make: type[Executor]) -> None:
    with make() as executor:
        plans = plan_many(CAPTURES, PARAMETERS, executor)
    assert plans == [make_plan(*pair) for pair in zip(CAPTURES, PARAMETERS, strict=True)]


def test_each_guest_needs_its_parameters() -> None:
    with ThreadPoolExecutor(1) as executor, pytest.raises(ValueError, match="shorter"):
        plan_many([guest(1, 0, IDLE)] * 2, [Parameters()], executor)
