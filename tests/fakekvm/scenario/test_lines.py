"""On which line a key stands."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakekvm.scenario.lines import KeyPath, key_lines, line_of, spelled
from tests.fakekvm.scenario.toml import Writer

TEXT = '''\
# a = 1
schema = "x"  # b = 2

[host] # the machine
base = "sev"
firmware = { send = 400, receive = 300 }  # one line in TOML 1.0

"quoted.key"."a \\" b" = 1
'lit' = 'c = 5 # no comment'
long = """
[not.a.header]
key = 1 \\""" still in
"""
when = 1979-05-27 07:32:00
list = [ 1, [2,
   3], # c = 7
   "]",
]

[[guest]]
[[guest.phase]]
does = "zipf"
[[guest.phase]]
steps = 5
[guest.phase.more]
deep.er = 1
[[guest]]
[[guest.phase]]
does = """"quotes"""""
end = \'\'\'a\'\'\'\'\'
last = 1
'''

LINES: dict[KeyPath, int] = {
    ("schema",): 2,
    ("host",): 4,
    ("host", "base"): 5,
    ("host", "firmware"): 6,
    ("host", "firmware", "send"): 6,
    ("host", "firmware", "receive"): 6,
    ("host", "quoted.key"): 8,
    ("host", "quoted.key", 'a " b'): 8,
    ("host", "lit"): 9,
    ("host", "long"): 10,
    ("host", "when"): 14,
    ("host", "list"): 15,
    ("host", "list", 0): 15,
    ("host", "list", 1): 15,
    ("host", "list", 1, 0): 15,
    ("host", "list", 1, 1): 16,
    ("host", "list", 2): 17,
    ("guest",): 20,
    ("guest", 0): 20,
    ("guest", 0, "phase"): 21,
    ("guest", 0, "phase", 0): 21,
    ("guest", 0, "phase", 0, "does"): 22,
    ("guest", 0, "phase", 1): 23,
    ("guest", 0, "phase", 1, "steps"): 24,
    ("guest", 0, "phase", 1, "more"): 25,
    ("guest", 0, "phase", 1, "more", "deep"): 26,
    ("guest", 0, "phase", 1, "more", "deep", "er"): 26,
    ("guest", 1): 27,
    ("guest", 1, "phase"): 28,
    ("guest", 1, "phase", 0): 28,
    ("guest", 1, "phase", 0, "does"): 29,
    ("guest", 1, "phase", 0, "end"): 30,
    ("guest", 1, "phase", 0, "last"): 31,
}


def test_every_key_of_an_ugly_file_is_found() -> None:
    tomllib.loads(TEXT)
    assert key_lines(TEXT) == LINES


def test_a_key_that_is_not_there_is_looked_for_in_its_table() -> None:
    lines = key_lines("a = 1\n[b]\nc = 2\n")
    assert line_of(lines, ("b", "missing")) == 2
    assert line_of(lines, ("missing", 3, "x")) == 1
    assert line_of(lines, ("b", "c")) == 3


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (("guest", 0, "phase", 12, "steps"), "guest[0].phase[12].steps"),
        (("a b", "c"), "'a b'.c"),
        (("x", "new\nline"), r"x.'new\nline'"),
        ((), ""),
    ],
)
def test_paths_are_spelled_as_people_write_them(path: KeyPath, text: str) -> None:
    assert spelled(path) == text


NAMES = st.sampled_from(["a", "b", "guest", "1", "-"]) | st.text(max_size=5).filter(
    lambda text: text.isprintable() or "\n" in text
)
VALUES = st.recursive(
    st.booleans() | st.integers(-9, 9) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(NAMES, VALUES, max_size=5))
@settings(max_examples=80, deadline=None)
def test_keys_are_found_where_they_were_put(values: dict[str, Any]) -> None:
    written = Writer(values)
    assert tomllib.loads(written.text) == values, "the writer writes TOML"
    assert key_lines(written.text) == written.lines
