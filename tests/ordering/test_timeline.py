"""A timeline is a run that really ends wrong when it is made step by step, and a shortest one."""

from __future__ import annotations

import pytest

from kvmenc.ordering.guests import ORDERS, Case, Order, Setting, case_of
from kvmenc.ordering.hostcode import host_code
from kvmenc.ordering.protocols import ASKED_ONCE, OWN, PROTOCOLS, Protocol
from kvmenc.ordering.timeline import Timeline, shortest_wrong_run
from tests.ordering import oracle

SLOW = Protocol(private_first=True, flips_dirty=False)


def told(protocol: Protocol, case: Case, live_rounds: int) -> Timeline | None:
    code = host_code(protocol, case.npages)
    return shortest_wrong_run(protocol.name, case, code, live_rounds)


def schedule(timeline: Timeline) -> list[int]:
    moves = []
    for step in timeline.steps:
        if step.actor.startswith("vCPU"):
            moves.append(int(step.actor.removeprefix("vCPU ")))
        elif step.round is not None:
            moves.append(oracle.HOST - 1 if step.does.startswith("read") else oracle.HOST)
    return moves


def outcome(protocol: Protocol, case: Case, timeline: Timeline) -> int:
    start, rounds = tuple(timeline.private_at_first), timeline.live_rounds
    return oracle.Migration(protocol, case, start, rounds, schedule(timeline)).run()


@pytest.mark.parametrize("setting", [Setting.ALONE, Setting.SECOND_WRITER])
def test_every_timeline_ends_wrong_when_it_is_run(setting: Setting) -> None:
    run = 0
    for order in ORDERS:
        for protocol in (*PROTOCOLS, ASKED_ONCE):
            case = case_of(order, setting)
            timeline = told(protocol, case, 2)
            if timeline:
                assert outcome(protocol, case, timeline) == oracle.WRONG
                run += 1
    assert run > 50
    assert run < len(ORDERS) * len(PROTOCOLS)


@pytest.mark.parametrize("order", ORDERS[:4], ids=lambda it: it.name)
def test_no_run_with_fewer_guest_moves_ends_wrong(order: Order) -> None:
    case = case_of(order, Setting.ALONE)
    timeline = told(ASKED_ONCE, case, 1)
    if timeline is None:
        assert not oracle.counted(ASKED_ONCE, case, 1)[oracle.WRONG]
        return
    for start in case.starts:
        for moves in oracle.all_schedules(ASKED_ONCE, case, 1):
            if sum(it >= 0 for it in moves) < timeline.guest_moves:
                run = oracle.Migration(ASKED_ONCE, case, start, 1, moves).run()
                assert run != oracle.WRONG


def test_what_is_never_wrong_has_no_timeline() -> None:
    for protocol in OWN:
        assert told(protocol, case_of(ORDERS[2], Setting.ONE_WORD), 1) is None


def test_a_timeline_says_who_does_what_and_what_it_comes_to() -> None:
    timeline = told(SLOW, case_of(ORDERS[1], Setting.ALONE), 3)
    assert timeline
    assert (timeline.live_rounds, timeline.private_at_first) == (1, [True])
    assert [(step.round, step.actor, step.does, step.result) for step in timeline.steps] == [
        (1, "host", "GET_PRIVATE", "private"),
        (1, "vCPU 0", "flip", "page table: shared"),
        (1, "vCPU 0", "announce", "kernel: shared"),
        (1, "vCPU 0", "write", "written in the clear"),
        (1, "host", "GET_DIRTY, which clears", "dirty"),
        (1, "host", "read and send", "encrypted road"),
        (None, "host", "GET_PRIVATE", "shared"),
        (None, "host", "GET_DIRTY, which clears", "clean"),
        (None, "host", "read and send", "not dirty: not sent"),
    ]
    assert (timeline.source_reads, timeline.destination_reads) == ("v", "d(s'(v))")


def test_of_two_pages_each_is_told() -> None:
    timeline = told(SLOW, case_of(ORDERS[1], Setting.ONE_WORD), 1)
    assert timeline
    results = {step.result for step in timeline.steps}
    assert any(it.startswith("page 0: private, page 1: ") for it in results)
    assert any(it in {"page 0: encrypted road", "page 1: encrypted road"} for it in results)
