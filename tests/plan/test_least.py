from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmenc.plan.least import figures, least_good


@given(
    edge=st.integers(0, 300),
    count=st.integers(1, 300),
    from_above=st.booleans(),
)
def test_the_edge_of_a_monotone_verdict_is_found_exactly(
    edge: int, count: int, from_above: bool
) -> None:
    asked: list[int] = []

    def good(index: int) -> bool:
        asked.append(index)
        return index >= edge

    if from_above:
        edge = min(edge, count - 1)
    found = least_good(good, count, from_above=from_above)
    assert found == ((edge, True) if edge < count else None)
    assert len(asked) == len(set(asked)) <= 20


@given(verdicts=st.lists(st.booleans(), min_size=1, max_size=120), from_above=st.booleans())
def test_whatever_the_verdicts_what_is_found_is_good_and_so_are_its_neighbours(
    verdicts: list[bool], from_above: bool
) -> None:
    verdicts[-1] |= from_above
    found = least_good(verdicts.__getitem__, len(verdicts), from_above=from_above)
    if found:
        index, _ = found
        assert all(verdicts[index : index + 3])


def test_a_smaller_value_found_good_makes_the_answer_unsure() -> None:
    verdicts = [False] * 22 + [True, False] + [True] * 30
    assert least_good(verdicts.__getitem__, len(verdicts), from_above=False) == (24, False)


def test_where_good_and_bad_alternate_there_is_no_answer() -> None:
    verdicts = [index % 2 == 0 for index in range(101)]
    assert least_good(verdicts.__getitem__, 101, from_above=False) is None


@given(low=st.floats(1e-3, 1e12), factor=st.floats(1.05, 1e5))
def test_figures_are_easy_to_type_and_close_to_each_other(low: float, factor: float) -> None:
    numbers = figures(low, low * factor)
    assert numbers == sorted(set(numbers))
    for number in numbers:
        assert low < number <= low * factor
        assert float(f"{number:.3g}") == number
    for smaller, larger in itertools.pairwise(numbers):
        assert 1 < larger / smaller <= 1.051
    if numbers:
        assert numbers[0] <= low * 1.0501
        assert numbers[-1] >= low * factor / 1.0501
    else:
        assert factor < 1.0501


def test_the_figures_of_a_decade() -> None:
    assert figures(9.7, 11.2) == [9.8, 10, 10.5, 11]
    assert figures(1e9, 1.1e9) == pytest.approx([1.05e9, 1.1e9])
