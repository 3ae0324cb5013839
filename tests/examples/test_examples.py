"""Each example runs, and prints what its text promises."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent.parent / "examples"

EXPECTED = {
    "two_bitmaps.py": [
        "dirty: 128 private, 0 shared; flipped: 0",
        # 16 flipped, of which 4 were written too: all 16 must be sent again.
        "dirty: 0 private, 16 shared; flipped: 16",
    ],
}


def test_every_example_is_tested() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_example(name: str) -> None:
    run = subprocess.run(
        [sys.executable, EXAMPLES / name], capture_output=True, text=True, timeout=60, check=False
    )
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.splitlines() == EXPECTED[name]
