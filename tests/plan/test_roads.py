from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmenc.capture import BlockFacts
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


@given(normal=AMOUNTS, zero=AMOUNTS, encrypted=AMOUNTS)
def test_bytes_and_times_are_those_of_a_stream_written_out_page_by_page(
    normal: int, zero: int, encrypted: int
) -> None:
    costs = RoadCosts(page_size=4096, link_bytes_per_s=1e6, private_rate_pps=400)
    roads = ["normal"] * normal + ["zero"] * zero + ["encrypted"] * encrypted
    stream, ms = b"", 0.0
    for road in roads:
        page = record(road, bytes(4096))
        stream += page
        ms += len(page) / 1000 + (2.5 if road == "encrypted" else 0)
    pages = ByRoad(normal, zero, encrypted)
    assert costs.wire_bytes(pages) == len(stream)
    assert costs.ms(pages) == pytest.approx(ms)


def test_a_page_costs_what_the_sources_say() -> None:
    assert RoadCosts(4096, 1e9, 400).bytes_per_page == (4104, 9, 4168)
    assert RoadCosts(4096, 1e9, 400).firmware_ms_per_page == (0, 0, 2.5)


def test_each_block_is_named_once_on_the_road_of_most_of_its_pages() -> None:
    blocks = [
        BlockFacts("pc.ram", 100, 51, None, 0),
        BlockFacts("vga.vram", 100, 50, None, 0),
        BlockFacts("bløk", 1, 0, None, 0),
    ]
    assert block_name_bytes(blocks) == ByRoad(normal=1 + 8 + 1 + 5, encrypted=1 + 6)
