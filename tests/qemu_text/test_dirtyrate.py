"""Control of calc-dirty-rate against scripted answers; QEMU's words are v7.2's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmenc.errors import HostError
from kvmenc.qemu import dirtyrate
from kvmenc.qemu.dirtyrate import DirtyRate, pages_of_rate, rate_samples
from tests.qemu_text.servers import Refusal, ToldQemu
from tests.qemu_text.test_facts import machine

if TYPE_CHECKING:
    from collections.abc import Iterator

MEASURED = {"status": "measured", "mode": "dirty-bitmap", "dirty-rate": 8}
MEASURING = {"status": "measuring", "mode": "dirty-bitmap"}
UNSTARTED = {"status": "unstarted", "mode": "page-sampling"}


def version(major: int, minor: int) -> dict[str, object]:
    return {"qemu": {"major": major, "minor": minor, "micro": 0}, "package": ""}


def told(*infos: object, **others: object) -> ToldQemu:
    """Answers query-dirty-rate so, in turn; the last for ever."""
    left: Iterator[object] = iter(infos)
    last = infos[-1] if infos else UNSTARTED
    return ToldQemu(
        {
            "query-version": version(10, 0),
            "query-migrate": {},
            "calc-dirty-rate": {},
            "query-dirty-rate": lambda: next(left, last),
            **machine(),
            **others,
        }
    )


def test_a_start_asks_for_the_bitmap_and_the_time() -> None:
    qemu = told()
    DirtyRate(qemu).start(3)
    assert qemu.asked[-1] == ("calc-dirty-rate", {"mode": "dirty-bitmap", "calc_time": 3})
    DirtyRate(qemu).start_ms(50)
    assert qemu.asked[-1][1] == {
        "mode": "dirty-bitmap",
        "calc_time": 50,
        "calc_time_unit": "millisecond",
    }


@pytest.mark.parametrize("calc_time_s", [0, 61, -1])
def test_a_time_that_qemu_does_not_take_is_not_asked_for(calc_time_s: int) -> None:
    qemu = told()
    with pytest.raises(HostError, match=f"1 to 60 s, not {calc_time_s}"):
        DirtyRate(qemu).start(calc_time_s)
    with pytest.raises(HostError, match="50 to 60,000 ms, not 49"):
        DirtyRate(qemu).start_ms(49)
    assert "calc-dirty-rate" not in [command for command, _ in qemu.asked]


def test_milliseconds_need_8_2() -> None:
    rate = DirtyRate(told(**{"query-version": version(8, 1)}))
    with pytest.raises(HostError, match=r"milliseconds need 8\.2"):
        rate.start_ms(100)


def test_a_qemu_before_6_2_has_no_such_mode() -> None:
    with pytest.raises(HostError, match=r"QEMU 6\.1\.0 cannot measure by dirty bitmap"):
        DirtyRate(told(**{"query-version": version(6, 1)}))


@pytest.mark.parametrize("protection", ["sev-snp-guest", "tdx-guest"])
def test_a_guest_whose_qemu_would_abort_is_never_asked(protection: str) -> None:
    qemu = told(**machine("x", type=protection, policy=0))
    with pytest.raises(HostError, match="QEMU ends when it is turned on"):
        DirtyRate(qemu)
    assert "calc-dirty-rate" not in [command for command, _ in qemu.asked]


@pytest.mark.parametrize("status", ["setup", "active", "pre-switchover", "postcopy-active"])
def test_a_migration_is_not_disturbed(status: str) -> None:
    qemu = told(**{"query-migrate": {"status": status}})
    with pytest.raises(HostError, match=rf"a migration goes on \({status}\)"):
        DirtyRate(qemu).start(1)
    assert qemu.asked[-1][0] == "query-migrate"


def test_a_measurement_of_somebody_else_is_left_alone() -> None:
    qemu = told(MEASURING)
    with pytest.raises(HostError, match="being measured already"):
        DirtyRate(qemu).start(1)
    assert "calc-dirty-rate" not in [command for command, _ in qemu.asked]


@pytest.mark.parametrize(
    ("description", "shown"),
    [
        ("the dirty rate is already being measured.", "being measured already"),
        ("mode dirty-bitmap is not enabled, use other method instead.", "dirty log is a ring"),
        ("out of luck", "calc-dirty-rate: QEMU refuses: out of luck"),
    ],
)
def test_what_qemu_refuses_is_explained(description: str, shown: str) -> None:
    with pytest.raises(HostError, match=shown):
        DirtyRate(told(**{"calc-dirty-rate": Refusal(description)})).start(1)


def test_nothing_is_waited_for_where_nothing_was_started() -> None:
    DirtyRate(told(UNSTARTED)).wait()


def test_unstarted_right_after_a_start_is_not_the_end() -> None:
    """QEMU says so until the thread it has just made runs."""
    rate = DirtyRate(told(UNSTARTED, UNSTARTED, MEASURING, MEASURED))
    rate.start(1)
    rate.wait()
    assert (rate.status(), rate.rate()) == ("measured", 8)


def test_a_measurement_that_never_ends_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dirtyrate, "_PATIENCE_S", -1.0)
    rate = DirtyRate(told(UNSTARTED, MEASURING))
    rate.start(1)
    with pytest.raises(HostError, match="does not end"):
        rate.wait()


@pytest.mark.parametrize("info", [UNSTARTED, MEASURING, {**MEASURED, "mode": "page-sampling"}])
def test_a_rate_of_another_mode_or_none_is_not_taken(info: object) -> None:
    with pytest.raises(HostError, match="no dirty rate by bitmap"):
        DirtyRate(told(info)).rate()


def qemus_rate(pages: int, ms: int, *, in_ms: bool) -> int:
    """do_calculate_dirtyrate of QEMU v10.0, and of v7.2."""
    return ((pages * 1000) >> 8) // ms if in_ms else (pages >> 8) * 1000 // ms


@given(
    pages=st.integers(0, 1 << 28),
    ms=st.sampled_from([50, 100, 1000, 3000, 51200]),
    in_ms=st.booleans(),
)
def test_a_rate_tells_the_fewest_and_the_most_pages(pages: int, ms: int, in_ms: bool) -> None:
    rate = qemus_rate(pages, ms, in_ms=in_ms)
    fewest, most = pages_of_rate(rate, ms, in_ms=in_ms)
    assert fewest <= pages <= most
    assert qemus_rate(fewest, ms, in_ms=in_ms) == qemus_rate(most, ms, in_ms=in_ms) == rate
    assert qemus_rate(most + 1, ms, in_ms=in_ms) != rate
    assert fewest == 0 or qemus_rate(fewest - 1, ms, in_ms=in_ms) != rate


@pytest.mark.parametrize(("release", "first_ms"), [((10, 0), 50), ((8, 1), 1000)])
def test_samples_double_until_the_time_is_over(release: tuple[int, int], first_ms: int) -> None:
    """Nothing here takes time, so the time that is left decides."""
    qemu = told(**{"query-version": version(*release), "query-dirty-rate": _always_at_once()})
    points = list(rate_samples(qemu, 5.0))
    assert [point.ms for point in points] == [ms for n in range(8) if (ms := first_ms << n) <= 5000]
    low, high = pages_of_rate(8, first_ms, in_ms=first_ms == 50)
    assert (points[0].pages - points[0].error_pages, points[0].pages + points[0].error_pages) == (
        low,
        high,
    )


def _always_at_once() -> object:
    return MEASURED


def test_one_sample_is_taken_however_short_the_time() -> None:
    assert len(list(rate_samples(told(MEASURED), 0.0))) == 1


def test_samples_end_with_the_longest_that_qemu_takes() -> None:
    points = list(rate_samples(told(MEASURED), 1e9))
    assert [point.ms for point in points][-1] == 51200
