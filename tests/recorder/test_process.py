"""Descriptors of a process against a slow model: which number is of which symbol, and which go."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kvmenc.recorder.process import Process

FDS = st.integers(0, 7)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("make"), FDS, FDS),
        st.tuples(st.just("copy"), FDS, FDS),
        st.tuples(st.just("close"), FDS, FDS),
    ),
    max_size=40,
)


@given(STEPS, STEPS)
def test_a_symbol_goes_with_its_last_descriptor_and_never_by_a_child(
    parents: list[tuple[str, int, int]], childs: list[tuple[str, int, int]]
) -> None:
    parent = Process(1)
    went, expected, made = run(parent, parents, 0, set())
    assert went == expected
    child = Process(2, parent)
    assert child.fds == parent.fds
    before = dict(parent.fds)
    went, expected, _made = run(child, childs, made, set(parent.fds.values()))
    assert went == expected
    assert parent.fds == before


def run(
    process: Process, steps: list[tuple[str, int, int]], first: int, inherited: set[int]
) -> tuple[list[int], list[int], int]:
    """What the process says that went, what the model says, and the next symbol."""
    model = dict(process.fds)
    went: list[int] = []
    expected: list[int] = []
    symbol = first
    for kind, one, other in steps:
        if kind == "make" and one not in model:
            process.made(one, symbol)
            model[one] = symbol
            symbol += 1
        elif kind == "copy" and one in model and other not in model:
            process.fds[other] = model[other] = model[one]
        elif kind == "close":
            low, high = sorted((one, other))
            leaving = range(low, high + 1)
            gone = {model.pop(fd) for fd in leaving if fd in model}
            expected += sorted(it for it in gone if it not in model.values())
            went += process.last_of(leaving)
        assert process.fds == model
    return went, [it for it in expected if it not in inherited], symbol
