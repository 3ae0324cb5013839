"""kvmenc's own tests under storms: all pass, or end in the right error.

``KVMENC_STORM_SEEDS=1-10`` (``make soak-storms``) takes all tests that meet a fake kernel and those
seeds; otherwise the quick ones are run, with one.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.storms.storms import STORMS

ROOT = Path(__file__).parents[2]
SEEDS = os.environ.get("KVMENC_STORM_SEEDS", "")
FEW = (
    "tests/contract/test_handles.py",
    "tests/contract/test_guest.py",
    "tests/contract/test_flips.py",
    "tests/contract/test_sev.py",
    "tests/encstate/test_in_a_guest.py",
    "tests/firmware/test_sessions.py",
)
ALL = (
    *("tests/backend", "tests/contract", "tests/encstate/test_in_a_guest.py", "tests/firmware"),
    *("tests/guest", "tests/kvm", "tests/ordering/test_stress.py", "tests/probe"),
    *("tests/rehearsal", "tests/test_measure.py", "tests/cli/test_dry_run.py"),
    *("tests/cli/test_plan_command.py", "tests/cli/test_probe.py"),
)
#: Of the machine's own KVM no storm is made, nor of what runs in another process.
FAKE_ONLY = ("-k", "not local and not overlay and not ctrl_c", "-m", "not (bench or qemu)")


def seeds() -> range:
    first, _, last = (SEEDS or "1-1").partition("-")
    return range(int(first), int(last or first) + 1)


def under(storm: str, seed: int, *arguments: str) -> str:
    """What pytest says of tests under a storm."""
    options = ("-p", "tests.storms.layer", f"--storm={storm}", f"--storm-seed={seed}")
    command = (sys.executable, "-m", "pytest", "-q", "--tb=short", "-p", "no:cacheprovider")
    done = subprocess.run(
        [*command, *options, *arguments],
        cwd=ROOT,
        env={**os.environ, "CI": "true"},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout + done.stderr


@pytest.mark.parametrize("seed", seeds())
@pytest.mark.parametrize("storm", STORMS)
def test_under_a_storm_no_answer_is_wrong(storm: str, seed: int) -> None:
    said = under(storm, seed, *(ALL if SEEDS else FEW), *FAKE_ONLY)
    told = re.search(r"(\d+) tests were struck, of which (\d+) ended in the right error", said)
    assert told, said
    assert re.search(r"^\d+ passed[^\n]* in ", said, re.MULTILINE), said
    assert not re.search(r"\d+ (failed|errors?)\b", said.splitlines()[-1]), said
    print(f"{storm}, seed {seed}: {told[0]}; {said.splitlines()[-1]}")
    assert int(told[1]) >= 20, "the storm was none"


KINDS = """
import numpy as np
import pytest

from fakekvm import Host
from kvmenc.backend.fake import FakeBackend
from kvmenc.errors import KvmencError
from kvmenc.kvm import KvmSystem


def until_it_fails():
    with KvmSystem.open(FakeBackend(Host())) as system:
        for count in range(10_000):
            system.check_extension(10)


def test_right():
    until_it_fails()


def test_right_though_another_error_is_expected():
    with pytest.raises(KvmencError, match="KVM_RUN"):
        until_it_fails()


def test_wrong_answer():
    with pytest.raises(KvmencError):
        until_it_fails()
    assert 1 == 2


def test_wrong_error():
    try:
        until_it_fails()
    except KvmencError as error:
        raise KvmencError("it did not work") from error


def test_bare_error():
    try:
        until_it_fails()
    except KvmencError as error:
        raise error.__cause__


def test_untouched():
    pass
"""


def test_what_is_right_under_a_storm_and_what_is_not(tmp_path: Path) -> None:
    path = tmp_path / "test_kinds.py"
    path.write_text(KINDS)
    said = under("enomem", 1, "-rA", str(path))
    told = re.findall(r"^([A-Z]+) .*?::test_(\w+)", said, re.MULTILINE)
    outcomes = {test: outcome for outcome, test in told}
    assert outcomes == {
        "untouched": "PASSED",
        "wrong_answer": "FAILED",
        "wrong_error": "FAILED",
        "bare_error": "FAILED",
    }
    assert "ended in the right error: KVM_CHECK_EXTENSION(cap=10) failed: ENOMEM" in said
    assert "5 tests were struck, of which 2 ended in the right error" in said
