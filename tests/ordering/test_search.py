"""What the whole search finds."""

from __future__ import annotations

import msgspec
import pytest

from kvmenc.ordering import Bounds, OrderCheck, check
from kvmenc.ordering.explore import Explorer
from kvmenc.ordering.guests import ORDERS, Setting, Xbzrle, case_of
from kvmenc.ordering.hostcode import host_code
from kvmenc.ordering.judge import Judge
from kvmenc.ordering.protocols import ASKED_ONCE, OWN, PROTOCOLS, Clearing, Protocol

pytestmark = pytest.mark.alone  # the search takes both cores

LINUX = "flip, announce, write"
IN_PLACE = "convert in place, flip, announce"


def wrong(found: OrderCheck, protocol: Protocol, order: str) -> int:
    """Runs; without those in which another vCPU writes before the announcement."""
    cells = [it for it in found.cells if (it.protocol, it.order) == (protocol.name, order)]
    return sum(it.wrong for it in cells if it.setting != Setting.SECOND_WRITER)


def test_kvmenc_is_never_wrong_where_a_host_can_be_right(found: OrderCheck) -> None:
    assert found.wrong_by_own == 0
    assert [it.name for it in found.protocols if it.own] == [it.name for it in OWN]
    own = {it.name for it in OWN}
    assert not any(it.wrong for it in found.cells if it.protocol in own)


def test_making_flips_dirty_makes_the_order_immaterial_and_clearing_late_is_wrong(
    found: OrderCheck,
) -> None:
    for protocol in PROTOCOLS:
        late = protocol.clearing == Clearing.AFTER_READING
        if protocol.flips_dirty:
            total = sum(wrong(found, protocol, order.name) for order in ORDERS)
            assert (total > 0) == late


def test_the_orders_of_2019_are_wrong_for_their_guests(found: OrderCheck) -> None:
    dirty_first = Protocol(flips_dirty=False)
    private_first = Protocol(private_first=True, flips_dirty=False)
    assert wrong(found, dirty_first, LINUX) == 0
    assert wrong(found, dirty_first, IN_PLACE) > 0
    assert wrong(found, private_first, LINUX) > 0
    cleared_late = Protocol(flips_dirty=False, clearing=Clearing.BEFORE_READING)
    assert wrong(found, cleared_late, LINUX) > 0, "as QEMU clears since 4.1"
    assert wrong(found, ASKED_ONCE, LINUX) > 0


def test_every_cell_counts_every_run_of_its_size(found: OrderCheck) -> None:
    """The number of interleavings depends on how many moves there are, not on what they do."""
    sizes: dict[tuple[int, int, str, int], set[int]] = {}
    calls = {it.name: len(it.calls) for it in found.protocols if not it.name.startswith("dirty;")}
    moves = {order.name: len(order.steps) for order in ORDERS}
    for it in found.cells:
        if it.protocol in calls:
            key = calls[it.protocol], moves[it.order], it.setting, it.live_rounds
            sizes.setdefault(key, set()).add(it.runs)
    assert all(len(runs) == 1 for runs in sizes.values())
    assert len(sizes) > 50


def test_every_broken_cell_has_a_timeline_and_no_other(found: OrderCheck) -> None:
    broken = {(it.protocol, it.order) for it in found.cells if it.wrong}
    assert {(it.protocol, it.order) for it in found.timelines} == broken
    assert len(found.timelines) == len(broken)


def test_the_bounds_are_at_least_those_that_were_asked_for(found: OrderCheck) -> None:
    assert found.live_rounds == 3
    assert {it.live_rounds for it in found.cells} == {1, 2, 3}
    assert set(found.settings) == set(Setting)
    case = case_of(ORDERS[5], Setting.ONE_WORD)
    assert (case.npages, len(case.programs), case.order.name.count("twice")) == (2, 2, 1)


def test_no_protocol_gets_a_guest_right_that_writes_before_it_announces(found: OrderCheck) -> None:
    late = {order.name for order in ORDERS if not order.announces_first}
    for it in found.cells:
        if it.setting == Setting.ALONE:
            lost = it.no_host + it.wrong
            assert lost > 0 if it.order in late else it.no_host == 0 or "old bytes" in it.order


def test_xbzrle_needs_the_encrypted_road_to_evict(found: OrderCheck) -> None:
    last = {it.xbzrle: it for it in found.xbzrle if it.live_rounds == 3}
    assert last[Xbzrle.EVICTS].wrong == 0
    assert last[Xbzrle.KEEPS].wrong > 0
    assert last[Xbzrle.EVICTS].runs == last[Xbzrle.KEEPS].runs


def test_the_claims_of_2019(found: OrderCheck) -> None:
    verdicts = {
        answer.who: answer.verdict for answer in found.answers if "order" not in answer.claim
    }
    assert verdicts == {
        "Gilbert": "does not hold",
        "Singh (a), (b)": "does not hold",
        "Singh (c)": "does not hold",
        "Singh (d)": "does not hold",
        "Singh (e)": "depends on the protocol",
    }
    by_who = {answer.who: answer for answer in found.answers}
    assert LINUX in by_who["Gilbert"].tested[0].fails_for
    assert by_who["Singh (a), (b)"].tested[0].holds_for[0] == "write, write"
    assert IN_PLACE in by_who["Singh (d)"].tested[0].fails_for
    assert "flip, announce" in by_who["Singh (d)"].tested[0].holds_for
    dirty_first, late, private_first = by_who["Singh (e)"].tested
    assert (dirty_first.fails_for, LINUX in late.fails_for) == ([], True)
    assert LINUX in private_first.fails_for


def test_a_page_table_that_is_watched_helps_no_page(found: OrderCheck) -> None:
    """Singh's (c): the same guests fare as they do without."""
    protocol = Protocol(flips_dirty=False).name
    fails = {
        setting: {
            it.order
            for it in found.cells
            if it.wrong and (it.protocol, it.setting) == (protocol, setting)
        }
        for setting in found.settings
    }
    assert fails[Setting.ALONE] == fails[Setting.PAGE_TABLE] != set()


def test_the_same_search_finds_the_same(found: OrderCheck) -> None:
    small = Bounds(1, (Setting.ALONE,))
    assert msgspec.json.encode(check(small)) == msgspec.json.encode(check(small))


@pytest.mark.parametrize("protocol", [OWN[1], Protocol(True, False)], ids=lambda it: it.name)
def test_merging_mirror_images_changes_no_count_and_halves_the_states(protocol: Protocol) -> None:
    for order in ORDERS[1:4]:
        case = case_of(order, Setting.ONE_WORD)
        counts, states = [], []
        for keeps in (False, True):
            explorer = Explorer(case, host_code(protocol, 2), 2, keeps=keeps)
            outcomes: dict[int, int] = {}
            for ending in explorer.endings():
                judged = Judge(case).outcomes(ending.bucket)
                for outcome, runs in zip(judged.tolist(), ending.bucket.runs.tolist(), strict=True):
                    outcomes[outcome] = outcomes.get(outcome, 0) + runs
            counts.append(outcomes)
            states.append(explorer.states)
        assert counts[0] == counts[1]
        assert 0.5 < states[0] / states[1] < 0.6
