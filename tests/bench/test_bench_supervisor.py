"""What an answer costs a program that runs on the fake."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import need

pytestmark = pytest.mark.bench

PROGRAM = Path(__file__).parent / "calls.c"
#: What each may take. The kernel needs some 20 us of it, for switching to and fro.
LIMITS_US = {
    "KVM_CHECK_EXTENSION": 50,
    "KVM_GET_REGS": 100,
    "KVM_RUN": 150,
    "stat": 100,
    "fstat": 1,
}


def test_round_trips(tmp_path: Path) -> None:
    compiler = shutil.which(os.environ.get("CC", "cc"))
    need(compiler is not None, "no C compiler", "KVMENC_REQUIRE_HEADERS")
    program = tmp_path / "calls"
    subprocess.run([str(compiler), "-O2", "-o", program, PROGRAM], check=True)
    fake = [sys.executable, "-m", "fakekvm.cli", "run", "--"]
    done = subprocess.run([*fake, program], check=True, capture_output=True, text=True)
    print()
    took_us = {}
    for line in done.stdout.splitlines():
        name, best, median = line.split()
        took_us[name] = float(best)
        print(f"{name}: {best} us in the best of 100 batches, {median} us in the median one")
    assert took_us.keys() == LIMITS_US.keys()
    assert not {name for name, limit in LIMITS_US.items() if took_us[name] > limit}
