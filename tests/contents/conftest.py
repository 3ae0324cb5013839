"""Huge pages and swap for the tests that need them, put back as they were."""

from __future__ import annotations

import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

_NR_HUGEPAGES = Path("/proc/sys/vm/nr_hugepages")
_TARGET_HUGEPAGES = 8
_ZRAM = Path("/sys/class/zram-control")


@pytest.fixture(scope="module")
def huge_pages() -> Iterator[None]:
    """Some free huge pages of 2 MiB."""
    try:
        before = int(_NR_HUGEPAGES.read_text())
        _NR_HUGEPAGES.write_text(str(before + _TARGET_HUGEPAGES))
    except OSError as error:
        pytest.skip(f"{_NR_HUGEPAGES} cannot be set here: {error}")
    try:
        if int(_NR_HUGEPAGES.read_text()) < before + _TARGET_HUGEPAGES:
            pytest.skip("this machine has no memory for huge pages")
        yield
    finally:
        _NR_HUGEPAGES.write_text(str(before))


@pytest.fixture(scope="module")
def swap() -> Iterator[None]:
    """16 MiB of zram to swap to: what is swapped out to a disk would stay in memory for a while."""
    try:
        number = (_ZRAM / "hot_add").read_text().strip()
    except OSError as error:
        pytest.skip(f"no zram device can be added here: {error}")
    device, settings = f"/dev/zram{number}", Path(f"/sys/block/zram{number}")
    with ExitStack() as cleanup:
        cleanup.callback((_ZRAM / "hot_remove").write_text, number)
        (settings / "disksize").write_text("16M")
        try:
            _run("mkswap", device)
            _run("swapon", device)
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"no swap can be added here: {error}")
        cleanup.callback(_run, "swapoff", device)
        yield


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
