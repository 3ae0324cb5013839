"""Arithmetic of headers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmenc.link.goodput import goodput_bytes_per_s, payload_bytes

RATES = st.floats(0, 1e12)


@pytest.mark.parametrize(
    ("mtu", "ipv6", "payload", "share"),
    [(1500, False, 1448, 0.9415), (1500, True, 1428, 0.9285), (9000, False, 8948, 0.9900)],
)
def test_tcp_over_ethernet_gets_the_well_known_share(
    mtu: int, ipv6: bool, payload: int, share: float
) -> None:
    """94.15 % is what every benchmark of gigabit Ethernet shows."""
    assert payload_bytes(mtu, ipv6=ipv6) == payload
    assert goodput_bytes_per_s(1, 0, payload, mtu + 14 + 24) == pytest.approx(share, abs=1e-4)


@given(RATES, RATES, st.integers(16, 65_000), st.integers(1, 200))
def test_goodput_is_never_negative_nor_more_than_what_is_free(
    rate: float, load: float, payload: int, headers: int
) -> None:
    goodput = goodput_bytes_per_s(rate, load, payload, payload + headers)
    assert 0 <= goodput <= max(0, rate - load)


@given(st.integers(1280, 65_535), st.booleans())
def test_a_larger_mtu_never_gives_less(mtu: int, ipv6: bool) -> None:
    def share(mtu: int) -> float:
        return goodput_bytes_per_s(1, 0, payload_bytes(mtu, ipv6=ipv6), mtu + 38)

    assert share(mtu) < share(mtu + 1)
