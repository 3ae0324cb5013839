"""Plan a fleet of some hundred guests, over this machine's processes and over dask.

``plan_many`` takes any ``concurrent.futures.Executor``. Here are the standard library's, and the
one that a dask cluster gives (``pip install '.[fleet]'`` in kvmenc's sources); on a cluster of many
machines only the address differs: ``Client("tcp://scheduler:8786")``.

    python examples/fleet.py                    # made-up guests
    python examples/fleet.py guest.capture 500  # 500 guests like this one, busier and quieter
"""

from __future__ import annotations

import logging
import multiprocessing
import random
import sys
import tempfile
import time
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from kvmenc import units
from kvmenc.capture import BlockFacts, Capture, CurvePoint, load_capture
from kvmenc.plan import Parameters, Plan, plan_many

if TYPE_CHECKING:
    from collections.abc import Iterator

WORKERS = 2
GIB_PAGES = 2**18
#: As many plans start each worker, before the time counts.
WARM_UP = 32


def made_up(luck: random.Random) -> Capture:
    """A guest of 1 to 32 GiB, a quarter of it zero; up to half private, or all shared."""
    npages = luck.randint(1, 32) * GIB_PAGES
    private = luck.choice([0, 0, npages // 10, npages // 2])
    hot, rate_pps = luck.randint(1_000, 80_000), luck.randint(100, 5_000)
    points = [(ms, hot + rate_pps * ms / 1000) for ms in (100, 1_000, 10_000)]
    share = private / npages
    return Capture(
        source="a made-up guest",
        private_source="made up",
        blocks=(BlockFacts("pc.ram", npages, private, (npages - private) // 4, 0),),
        curve=tuple(
            CurvePoint(ms, round(pages * share), round(pages * (1 - share))) for ms, pages in points
        ),
    )


def like(capture: Capture, luck: random.Random) -> Capture:
    """The same guest, busier or quieter."""
    pace = luck.uniform(0.5, 2)
    return replace(capture, curve=tuple(replace(it, ms=it.ms * pace) for it in capture.curve))


@contextmanager
def processes() -> Iterator[Executor]:
    """Processes of this machine."""
    context = multiprocessing.get_context("forkserver")
    with ProcessPoolExecutor(WORKERS, mp_context=context) as executor:
        yield executor


@contextmanager
def dask() -> Iterator[Executor]:
    """A dask cluster that lives on this machine's loopback, without a dashboard."""
    from distributed import Client, LocalCluster  # noqa: PLC0415 - optional

    with (
        tempfile.TemporaryDirectory() as folder,
        LocalCluster(  # type: ignore[no-untyped-call]
            n_workers=WORKERS,
            threads_per_worker=1,
            host="127.0.0.1",
            dashboard_address=None,
            scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},  # else it takes port 8787
            local_directory=folder,
            silence_logs=logging.CRITICAL,
        ) as cluster,
        Client(cluster) as client,  # type: ignore[no-untyped-call]
    ):
        yield client.get_executor(pure=False)  # pure: each capture would be hashed first


def timed(executor: Executor, captures: list[Capture], all_alike: list[Parameters]) -> list[Plan]:
    """Plan the fleet, and print how fast that was; starting workers is not counted."""
    plan_many(captures[:WARM_UP], all_alike[:WARM_UP], executor)
    start = time.perf_counter()
    plans = plan_many(captures, all_alike, executor)
    took_s = time.perf_counter() - start
    name = type(executor).__name__
    print(f"{name:20} {len(plans) / took_s:6.0f} plans/s, {WORKERS} processes")
    return plans


def main(args: list[str]) -> None:
    """Plan the same fleet twice, and sum up."""
    luck = random.Random(2019)
    count = int(args[-1]) if args and args[-1].isdecimal() else 300
    if args and not args[0].isdecimal():
        captured = load_capture(Path(args[0]))
        captures = [like(captured, luck) for _ in range(count)]
    else:
        captures = [made_up(luck) for _ in range(count)]
    parameters = [Parameters(max_bandwidth_bytes_per_s=1e9, private_rate_pps=20e3)] * count

    with processes() as executor:
        plans = timed(executor, captures, parameters)
    try:
        with dask() as executor:
            same = timed(executor, captures, parameters) == plans
        print("Both say the same." if same else "They differ!")
    except ModuleNotFoundError:
        print("dask.distributed is not here: pip install '.[fleet]' in kvmenc's sources")

    ends = [plan for plan in plans if plan.total_time_ms is not None]
    total_ms = sum(plan.total_time_ms or 0 for plan in ends)
    pause_ms = max((plan.downtime_ms or 0 for plan in ends), default=0)
    sent = sum(plan.totals.bytes.total for plan in ends)
    print(f"{len(ends)} of {count} guests converge: {units.format_size(sent)} to send,")
    print(f"{units.format_time(total_ms)} one after the other, longest pause ", end="")
    print(f"{units.format_time(pause_ms)}.")


if __name__ == "__main__":
    main(sys.argv[1:])
