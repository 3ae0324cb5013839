"""Guests that write streams of pages write the pages that they say, and as fast."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.qemu.guest import PAGE, REGION_GPA, Guest, Paced, Stream
from tests.qemu.machine import Machine

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

_PAGES = 6000

pytestmark = [pytest.mark.qemu, pytest.mark.alone]


def words(qemu: Machine) -> NDArray[np.uint32]:
    """The first of each page of a part of the region."""
    region = qemu.memory.read(REGION_GPA, _PAGES * PAGE)
    return np.frombuffer(region, "<u4").reshape(_PAGES, -1)[:, 0]


@contextmanager
def running(folder: Path, *streams: Stream, **how: object) -> Iterator[Machine]:
    """A guest whose memory is zero but for what the streams write, and for the region's first."""
    writer = Paced(streams, **{"period_ms": 10, **how})  # type: ignore[arg-type]
    with Machine(folder / "vm", Guest(1, writer=writer)) as qemu:
        yield qemu


def written(qemu: Machine) -> set[int]:
    return set(map(int, np.flatnonzero(words(qemu))))


@pytest.mark.parametrize("order", ["sweep", "scatter", "random"])
def test_every_page_of_a_stream_is_written_and_no_other(tmp_path: Path, order: str) -> None:
    stream = Stream(300, 50, order, first=100, spacing=3)  # type: ignore[arg-type]
    expected = {0, *range(100, 1000, 3)}
    with running(tmp_path, stream) as qemu:
        qemu.wait_for("all pages", lambda: written(qemu) >= expected)
        time.sleep(0.1)
        assert written(qemu) == expected


def test_streams_have_a_pace_each(tmp_path: Path) -> None:
    slow, fast = Stream(1000, 1, "sweep", 1), Stream(4000, 4, "sweep", 2000)
    with running(tmp_path, slow, fast) as qemu:
        qemu.wait_for("some pages", lambda: len(written(qemu)) > 200)
        qemu.command("stop")
        pages = np.array(sorted(written(qemu)))
    assert 4 * int((pages < 2000).sum()) == pytest.approx(int((pages >= 2000).sum()), abs=10)


def pages_per_s(qemu: Machine, npages: int) -> float:
    """Until so many more are written."""
    start, before = time.monotonic(), len(written(qemu))
    qemu.wait_for("pages", lambda: len(written(qemu)) > before + npages)
    return (len(written(qemu)) - before) / (time.monotonic() - start)


@pytest.mark.parametrize("clock", ["timer", "cpu"])
def test_a_pace_is_kept(tmp_path: Path, clock: str) -> None:
    """How slow it may be depends on what else the machine does; PVM emulates the guest, too."""
    with running(tmp_path, Stream(5900, 20, "sweep"), clock=clock) as qemu:
        assert 10 < pages_per_s(qemu, 2000) < 2000 * 1.3


def test_there_are_pauses_between_bursts(tmp_path: Path) -> None:
    """Of 100 ms in every 400."""
    with running(tmp_path, Stream(5900, 50, "sweep"), on_periods=10, off_periods=30) as qemu:
        assert 10 < pages_per_s(qemu, 2500) < 5000 / 2
