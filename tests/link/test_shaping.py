"""Rates of qdiscs, from what iproute2 and the kernel's own headers say."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmenc.errors import HostError
from kvmenc.link.attributes import number, split
from kvmenc.link.shaping import shapes
from tests.link.iproute2 import REQUESTS
from tests.link.recorded import ROOT, attribute, decode, tc

CLASS = 40


@pytest.mark.parametrize(
    ("request_name", "rates"),
    [
        ("fq", [("fq 10: maxrate", 250e6, True, 0)]),
        ("fq_plain", []),
        ("fq_nopacing", []),
        ("cake", [("cake 20:", 62.5e6, False, 38 - 14)]),
        ("cake_raw", [("cake 20:", 62.5e6, False, 0)]),
        ("cake_unl", []),
        ("netem", [("netem 30:", 25e6, False, 0)]),
        ("netem_fast", [("netem 30:", 12.5e9, False, 0)]),
        ("tbf_fast", [("tbf 40:", 12.5e9, False, 0)]),
    ],
)
def test_the_rate_that_iproute2_sets_is_found(
    request_name: str, rates: list[tuple[str, float, bool, int]]
) -> None:
    found = shapes(decode(bytes.fromhex(REQUESTS[request_name])), [])
    assert rates == [
        (one.by, one.rate_bytes_per_s, one.per_connection, one.overhead_bytes)
        for one in found.rates
    ]
    assert found.notes == []


def tbf(rate: int, *, overhead: int = 0, buffer: int = 0) -> bytes:
    """Lay out struct tc_tbf_qopt."""
    spec = struct.pack("=BBHhHI", 0, 1, overhead, 0, 0, rate)
    return attribute(1, spec + bytes(12) + struct.pack("=III", 0, buffer, 0))


def htb(default: int) -> bytes:
    """Lay out struct tc_htb_glob."""
    return attribute(2, struct.pack("=IIIII", 3, 10, default, 0, 0))


def htb_class(rate: int, ceil: int) -> bytes:
    """Lay out struct tc_htb_opt."""
    specs = b"".join(struct.pack("=BBHhHI", 0, 1, 0, 0, 0, one) for one in (rate, ceil))
    return attribute(1, specs + bytes(20))


def test_the_burst_of_tbf_is_in_ticks_of_64_ns() -> None:
    (rate,) = shapes(decode(tc("tbf", 0x10000, ROOT, tbf(10**6, buffer=15_625))), []).rates
    assert rate.burst_bytes == pytest.approx(1000)


def test_htb_goes_by_the_default_class_and_all_that_it_borrows_from() -> None:
    qdiscs = tc("htb", 0x10000, ROOT, htb(0x20)) + tc("tbf", 0x20000, 0x10020, tbf(9000))
    classes = (
        tc("htb", 0x10001, ROOT, htb_class(5000, 6000), CLASS)
        + tc("htb", 0x10010, 0x10001, htb_class(10, 20), CLASS)
        + tc("htb", 0x10020, 0x10001, htb_class(1000, 8000), CLASS)
    )
    found = shapes(decode(qdiscs), decode(classes))
    assert [(one.by, one.rate_bytes_per_s, one.guaranteed_bytes_per_s) for one in found.rates] == [
        ("htb class 1:20", 8000, 1000),
        ("htb class 1:1", 5000, 5000),
        ("tbf 2:", 9000, None),
    ]
    assert found.notes == ["htb 1: goes by its default class, filters are not read"]


@pytest.mark.parametrize("default", [0, 0x99])
def test_htb_without_a_default_class_limits_nothing_and_says_so(default: int) -> None:
    classes = decode(tc("htb", 0x10010, ROOT, htb_class(10, 20), CLASS))
    found = shapes(decode(tc("htb", 0x10000, ROOT, htb(default))), classes)
    assert found.rates == []
    assert found.notes == ["htb 1: has no default class: unfiltered is unlimited"]


def test_all_queues_of_mq_are_read_though_their_handles_are_0() -> None:
    flow = attribute(7, struct.pack("=I", 1000))
    qdiscs = tc("mq", 0, ROOT) + tc("fq", 0, 1, flow) + tc("fq", 0, 2, flow)
    found = shapes(decode(qdiscs), [])
    assert [one.rate_bytes_per_s for one in found.rates] == [1000, 1000]
    assert found.notes == ["mq 0: goes by its tightest queue"]


def test_a_qdisc_below_another_is_read_too_and_one_elsewhere_is_not() -> None:
    qdiscs = tc("netem", 0x10000, ROOT, bytes(24)) + tc("tbf", 0x20000, 0x10001, tbf(7))
    found = shapes(decode(qdiscs + tc("tbf", 0x30000, 0x90001, tbf(3))), [])
    assert [one.by for one in found.rates] == ["tbf 2:"]


def test_what_is_not_read_is_said() -> None:
    qdiscs = tc("hfsc", 0x10000, ROOT) + tc("clsact", 0xFFFF0000, 0xFFFFFFF1)
    assert shapes(decode(qdiscs), []).notes == [
        "an ingress or clsact qdisc is there: policing is not read",
        "hfsc 1: may limit the rate: it is not read",
    ]


@pytest.mark.parametrize("options", [b"", attribute(1, bytes(35)), b"\xff\xff\x01\x00"])
def test_options_that_are_cut_short_are_one_clear_error(options: bytes) -> None:
    with pytest.raises(HostError, match="netlink: "):
        shapes(decode(tc("tbf", 0x10000, ROOT, options)), [])


@given(st.dictionaries(st.integers(0, 0x3FFF), st.binary(max_size=9), max_size=6))
def test_attributes_come_back_as_they_were_laid_out(attributes: dict[int, bytes]) -> None:
    data = b"".join(attribute(kind, value) for kind, value in attributes.items())
    assert split(data) == attributes


@given(st.integers(-(2**31), 2**31 - 1))
def test_numbers_are_read_with_their_sign_if_asked(value: int) -> None:
    data = {3: struct.pack("=i", value)}
    assert number(data, 3, signed=True) == value
    assert number(data, 3) == value % 2**32
    assert number(data, 4) is None


@given(st.binary(max_size=64))
def test_any_bytes_are_attributes_or_one_clear_error(data: bytes) -> None:
    try:
        found = split(data)
    except HostError:
        return
    assert sum(4 + len(value) for value in found.values()) <= len(data)
