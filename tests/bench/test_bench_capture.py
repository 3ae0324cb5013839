"""How long a capture of a busy guest of 1 TiB takes to save, open and show, and how large it is."""

from __future__ import annotations

import io
import time
from statistics import median
from typing import TYPE_CHECKING

import pytest

from kvmenc.capture import load_capture, open_capture, save_capture
from kvmenc.report.show import ShowReport, print_show
from kvmenc.report.terminal import Terminal
from tests.capture.big import big_capture

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.bench

POINTS = 2500  # in each of two windows
MIB = 1 << 20


def timed(what: str, call: Callable[[], object], rounds: int) -> float:
    """Best of several rounds in ms, as noise only ever adds; both it and the median are printed."""
    took_ms = []
    for _ in range(rounds):
        start = time.perf_counter()
        call()
        took_ms.append((time.perf_counter() - start) * 1e3)
    print(f"{what:<28}best {min(took_ms):8.1f} ms, median {median(took_ms):8.1f} ms")
    return min(took_ms)


def test_a_capture_of_1_tib(tmp_path: Path) -> None:
    path = tmp_path / "big.capture"
    capture, bitmaps = big_capture(POINTS)
    raw_mib = sum(words.nbytes for words in bitmaps.values()) / MIB

    def show() -> None:
        with open_capture(path) as file:
            print_show(ShowReport.of(file), Terminal(file=io.StringIO(), width=80))

    print(f"\n\n1 TiB guest, {2 * POINTS} looks, {raw_mib:.0f} MiB of bitmaps")
    save_ms = timed("save", lambda: save_capture(capture, path, bitmaps), 5)
    print(f"{'file':<28}{path.stat().st_size / MIB:13.1f} MiB")
    assert timed("load_capture", lambda: load_capture(path), 20) < 100
    assert timed("open_capture", lambda: open_capture(path).__exit__(), 20) < 100
    assert timed("open, read bitmaps, show", show, 5) < 1000
    assert save_ms < 5000
