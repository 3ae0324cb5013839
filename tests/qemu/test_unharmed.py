"""A tool that looks into a QEMU is killed, and the QEMU is none the worse.

Half of the kills come at random moments, half at every ptrace request in turn. 150 in all, or as
many as ``KVMENC_KILLS`` in the environment says: ``make soak``.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING

import msgspec
import pytest

from kvmenc import uapi
from kvmenc.plan import Parameters
from kvmenc.procfs import mappings, thread_ids
from kvmenc.tracee import Injector, Target
from kvmenc.tracee.scratch import RANGE
from tests.qemu.guest import Guest, Worker
from tests.qemu.inside import differing_pages
from tests.qemu.machine import Machine
from tests.qemu.process import FIRST
from tests.qemu.setup import Setup
from tests.qemu.state import (
    differs_from_its_file,
    pending_signals,
    registers_of,
    state_of,
    system_call_of,
)
from tests.qemu.torture import REQUESTS, STEPS_WITH_REQUESTS, Outcome, Wishes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.qemu

KILLS = int(os.environ.get("KVMENC_KILLS", "100"))
#: QEMU keeps its dirty log on for a minute.
SECONDS = 50
UNCAPPED = Parameters(max_bandwidth_bytes_per_s=1e12)
#: Of a mapping; nothing else is as large.
ODD_BYTES = (37 << 20) + 4096
#: QEMU's main loop takes the first two (v7.2, util/main-loop.c); nobody handles the third.
SIGNALS = (signal.SIGALRM, signal.SIGIO, signal.SIGCONT)

SETUPS = [
    pytest.param(Setup(cpu_limit_s=600), id="plain"),
    pytest.param(Setup(cpu_limit_s=600, sandbox=True), id="sandbox"),
]


@pytest.fixture(params=SETUPS)
def qemu(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Machine]:
    with Machine(tmp_path / "vm", Guest(1000, 3, Worker()), setup=request.param) as machine:
        machine.give_way()
        yield machine


def torture(qemu: Machine, kills: int) -> tuple[Outcome, int]:
    """Returns what came of it, and how many signals were sent to QEMU, and taken, meanwhile."""
    slots = qemu.log_dirty()
    wishes = Wishes(qemu.pid, qemu.vcpu_tids, slots, kills, SECONDS, random.getrandbits(32))
    print(f"\nseed {wishes.seed}")
    command = [*FIRST, sys.executable, "-m", "tests.qemu.torture"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as program:
        assert program.stdin
        assert program.stdout
        program.stdin.write(msgspec.json.encode(wishes))
        program.stdin.close()
        signals = 0
        while program.poll() is None:
            send(qemu, SIGNALS[signals % len(SIGNALS)])
            signals += 1
            time.sleep(0.005)
        output = program.stdout.read()
    assert qemu.is_alive(), f"QEMU died: {output.decode()}"
    assert program.returncode == 0
    return msgspec.json.decode(output, type=Outcome), signals


def send(qemu: Machine, number: signal.Signals) -> None:
    os.kill(qemu.pid, number)
    qemu.wait_for(f"{number.name} to be taken", lambda: pending_signals(qemu.pid) == 0)


def tortures(qemu: Machine) -> Outcome:
    """As often as wanted, with a new dirty log for each minute."""
    kills, signals, steps, requests = 0, 0, Counter[str](), Counter[str]()
    while True:
        outcome, taken = torture(qemu, KILLS - kills)
        kills += outcome.kills
        signals += taken
        steps.update(outcome.steps)
        requests.update(outcome.requests)
        if kills == KILLS:
            break
        qemu.dirty_rate_mib_per_s()
    print(f"{kills} kills, {signals} signals\n{steps}\n{requests}")
    assert signals > kills / 10
    return Outcome(kills, steps, requests)


def sleepers(qemu: Machine) -> list[int]:
    """The threads but the main one, the vCPUs, and the kernel's own, which have no instructions."""
    tids = [tid for tid in thread_ids(qemu.pid) if tid not in {qemu.pid, *qemu.vcpu_tids}]
    return [tid for tid in tids if sleep_of(qemu, tid)[-1]]


def sleep_of(qemu: Machine, tid: int) -> tuple[int, ...]:
    """Where a thread sleeps for good: first argument, stack and instruction pointer.

    One that works, or has a rest before it does, is waited for. The call's number is not told, for
    one that was interrupted is restart_syscall from then on.
    """

    def look() -> tuple[int, ...] | None:
        call = system_call_of(qemu.pid, tid)
        return None if call is None or call[0] == uapi.SYS_clock_nanosleep else call[1:]

    return qemu.wait_for(f"thread {tid} to sleep", look)


def rcu_frees_memory(qemu: Machine) -> bool:
    """QEMU's RCU thread unmaps a RAMBlock that was deleted."""

    def is_mapped() -> bool:
        return any(it.end - it.start == ODD_BYTES for it in mappings(qemu.pid))

    qemu.command("object-add", qom_type="memory-backend-ram", id="odd", size=ODD_BYTES)
    assert is_mapped()
    qemu.command("object-del", id="odd")
    return qemu.wait_for("the RCU thread", lambda: not is_mapped())


def goes_on(qemu: Machine) -> None:
    """The guest works, and finds no harm in its registers and memory."""
    rounds = qemu.memory.progress()
    qemu.wait_for("the guest", lambda: qemu.memory.progress() > rounds + 10)
    assert qemu.memory.harm() == 0


def scratch_mappings(qemu: Machine) -> list[int]:
    return [it.start for it in mappings(qemu.pid) if it.start in RANGE]


def test_qemu_is_unharmed(qemu: Machine, tmp_path: Path) -> None:
    sleeps = {tid: sleep_of(qemu, tid) for tid in sleepers(qemu)}
    registers = {tid: registers_of(tid) for tid in sleeps}
    before = state_of(qemu.pid)

    died = tortures(qemu)

    assert died.steps.keys() >= set(STEPS_WITH_REQUESTS)
    assert died.requests.keys() >= set(REQUESTS)
    assert before.is_still(state_of(qemu.pid))
    assert differs_from_its_file(qemu.pid) == []
    assert {tid: sleep_of(qemu, tid) for tid in sleeps} == sleeps
    assert {tid: registers_of(tid) for tid in sleeps} == registers
    assert rcu_frees_memory(qemu)

    with Injector(Target.of(qemu.pid, qemu.vcpu_tids)):
        assert len(scratch_mappings(qemu)) == 1
    assert scratch_mappings(qemu) == []

    goes_on(qemu)
    with qemu.twin(tmp_path / "twin") as twin:
        qemu.migrate_to(twin.listen(), UNCAPPED)
        twin.wait_for_arrival()
        dumps = [one.dump(tmp_path / f"dump-{one.pid}") for one in (qemu, twin)]
        assert differing_pages(*dumps) == []
        twin.command("cont")
        goes_on(twin)
