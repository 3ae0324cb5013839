from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmenc.capture import BlockFacts
from kvmenc.plan import PROFILES, QEMU_10_0, Parameters, Profile, Xbzrle
from kvmenc.plan.roads import ByRoad, RoadCosts, block_name_bytes

AMOUNTS = st.integers(0, 50)


def record(road: str, page: bytes) -> bytes:
    """One page as it goes on the wire, without a block name."""
    header = struct.pack(">Q", 0x1000)
    if road == "normal":
        return header + page
    if road == "zero":
        return header + bytes(1)
    sev_header = bytes(4 + 16 + 32)
    return (
        header
        + struct.pack(">I", 1)
        + struct.pack(">I", len(sev_header))
        + sev_header
        + struct.pack(">I", len(page))
        + page
    )


def costs_of(parameters: Parameters, profile: Profile = QEMU_10_0) -> RoadCosts:
    return RoadCosts(4096, parameters, profile)


@given(normal=AMOUNTS, zero=AMOUNTS, encrypted=AMOUNTS)
def test_bytes_and_times_are_those_of_a_stream_written_out_page_by_page(
    normal: int, zero: int, encrypted: int
) -> None:
    costs = costs_of(Parameters(link_bytes_per_s=1e6))
    roads = ["normal"] * normal + ["zero"] * zero + ["encrypted"] * encrypted
    stream, ms = b"", 0.0
    for road in roads:
        page = record(road, bytes(4096))
        stream += page
        ms += len(page) / 1000 + (2.5 if road == "encrypted" else 0)
    pages = ByRoad(normal, zero, encrypted)
    assert sum(pages.times(costs.bytes_per_page)) == len(stream)
    assert sum(pages.times(costs.ms_per_page)) == pytest.approx(ms)
    assert costs.stopped_ms(len(stream), encrypted, 0) == pytest.approx(ms)


def test_a_page_costs_what_the_sources_say() -> None:
    assert costs_of(Parameters()).bytes_per_page == (4104, 9, 4168)
    assert costs_of(Parameters()).firmware_ms_per_page == (0, 0, 2.5)


@pytest.mark.parametrize(("version", "zero"), [("7.2", 9), ("8.2", 9), ("10.0", 10.5)])
def test_multifd_sends_offsets_in_packets_and_later_zero_pages_too(
    version: str, zero: float
) -> None:
    costs = costs_of(Parameters(multifd_channels=2), PROFILES[version])
    assert costs.bytes_per_page == (4096 + (320 + 128 * 8) / 128, zero, 4168)


def test_connections_wait_for_each_other_after_a_call_or_after_a_round() -> None:
    with_two = Parameters(multifd_channels=2)
    old, new = (costs_of(with_two, PROFILES[version]) for version in ("7.2", "10.0"))
    assert (old.call_bytes, old.round_bytes) == (8 + 3 * 1344, 0)
    assert (new.call_bytes, new.round_bytes) == (18, 3 * 1344 + 8)
    assert costs_of(Parameters()).round_bytes == 0


def test_xbzrle_knows_what_was_sent_twice_and_has_a_place() -> None:
    costs = costs_of(Parameters(xbzrle=Xbzrle(0.25, cache_bytes=100 * 4096)))
    assert costs.known_share(50, 0) == 0
    assert costs.known_share(50, 25) == 0.5
    assert costs.known_share(50, 500) == 1
    assert costs.known_share(200, 500) == 0.5
    assert costs.bytes_again(1) == (8 + 3 + 1024, 9, 4168)
    assert costs.bytes_again(0.5).normal == (4104 + 1035) / 2


def test_a_send_buffer_takes_at_once_what_left_it_while_nothing_was_sent() -> None:
    costs = costs_of(Parameters(50e6, 100e6, send_buffer_bytes=4e6))
    assert costs.stopped_ms(3e6, 0, 100) == pytest.approx(3)
    assert costs.stopped_ms(10e6, 0, 100) == pytest.approx(4 + 60)
    assert costs.stopped_ms(10e6, 0, 10) == pytest.approx(1 + 90)
    assert costs.stopped_ms(10e6, 0, 0) == pytest.approx(100)


@pytest.mark.parametrize("version", PROFILES)
def test_a_window_ends_when_a_lot_exceeds_the_limit(version: str) -> None:
    costs = costs_of(Parameters(10e6), PROFILES[version])
    lot = PROFILES[version].flush_bytes
    assert 1e6 < costs.window_bytes <= 1e6 + lot
    assert costs.window_bytes % lot == 0


def test_each_block_is_named_once_on_the_road_of_most_of_its_pages() -> None:
    blocks = [
        BlockFacts("pc.ram", 100, 51, None, 0),
        BlockFacts("vga.vram", 100, 50, None, 0),
        BlockFacts("bløk", 1, 0, None, 0),
    ]
    assert block_name_bytes(blocks) == ByRoad(normal=1 + 8 + 1 + 5, encrypted=1 + 6)
