from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from kvmenc.backtest import Geometric, Rule2023
from kvmenc.backtest.predict import Prediction, Predictors, Question, predict
from kvmenc.plan import QEMU_10_0, Parameters
from tests.plan.guests import GIB_PAGES, guest

if TYPE_CHECKING:
    from kvmenc.backtest.result import Predictor

POINTS = [(100.0, 50, 500), (1000.0, 400, 4000), (2000.0, 600, 6000)]
CAPTURE = guest(GIB_PAGES, 1000, POINTS, zero=2**17)


def predictions(parameters: Parameters) -> dict[Predictor, Prediction]:
    return predict(Question(CAPTURE, parameters, QEMU_10_0))


@pytest.mark.parametrize(("cap", "link"), [(1e8, 2e8), (2e8, 1e8)])
def test_the_rivals_know_the_lesser_bandwidth_and_no_private_pages(cap: float, link: float) -> None:
    found = predictions(Parameters(max_bandwidth_bytes_per_s=cap, link_bytes_per_s=link))
    shared = [(ms, 0, private + others) for ms, private, others in POINTS]
    in_the_clear = guest(GIB_PAGES, 0, shared, zero=2**17)
    models: dict[Predictor, type[Rule2023 | Geometric]] = {
        "rule2023": Rule2023,
        "geometric": Geometric,
    }
    for name, model in models.items():
        rounds = model.of(in_the_clear).rounds(1e8, 300)
        assert rounds
        assert found[name].values == {
            "total-time": rounds.total_ms,
            "bulk_ms": rounds.ms[0],
            "after_bulk_ms": pytest.approx(rounds.total_ms - rounds.ms[0]),
            "downtime": rounds.ms[-1],
            "transferred": rounds.sent_bytes,
            "dirty-sync-count": len(rounds.ms) + 1,
        }


def test_what_ends_after_the_time_limit_does_not_converge() -> None:
    parameters = Parameters(max_bandwidth_bytes_per_s=1e8, private_rate_pps=1e6)
    total_ms = {name: it.values["total-time"] for name, it in predictions(parameters).items()}
    for name, ms in total_ms.items():
        for limit_ms, converges in ((ms * 0.99, False), (ms * 1.01, True)):
            limited = replace(parameters, time_limit_ms=limit_ms)
            assert predictions(limited)[name].converges == converges


def test_what_was_asked_before_is_not_thought_over_again(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Question] = []

    def counted(question: Question) -> dict[Predictor, Prediction]:
        asked.append(question)
        return predict(question)

    monkeypatch.setattr("kvmenc.backtest.predict.predict", counted)
    predictors, slow = Predictors(), Parameters(max_bandwidth_bytes_per_s=1e8)
    first = predictors.predictions(Question(CAPTURE, slow, QEMU_10_0))
    same_guest = guest(GIB_PAGES, 1000, POINTS, zero=2**17)
    assert predictors.predictions(Question(same_guest, replace(slow), QEMU_10_0)) is first
    fast = replace(slow, max_bandwidth_bytes_per_s=2e8)
    assert predictors.predictions(Question(CAPTURE, fast, QEMU_10_0)) != first
    assert len(asked) == 2
