from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmenc import units
from kvmenc.errors import InputError


@pytest.mark.parametrize(
    ("text", "bytes_per_s"),
    [
        ("1GB/s", 1e9),
        ("1 GB/s", 1e9),
        (" 128MiB/s ", 128 * 2**20),
        ("1.5kB/s", 1500),
        ("1KB/s", 1000),
        ("1KiB/s", 1024),
        ("10Gbit", 1.25e9),
        ("10gbit", 1.25e9),
        ("10Gbit/s", 1.25e9),
        ("8bit/s", 1),
    ],
)
def test_a_bandwidth_is_read_as_bytes_per_second(text: str, bytes_per_s: float) -> None:
    assert units.parse_bandwidth_bytes_per_s(text) == bytes_per_s


@pytest.mark.parametrize("text", ["1Gb", "1Gb/s", "1Gbps", "1GBps", "1gb/s", "1G", "1Gib"])
def test_bits_or_bytes_is_never_guessed(text: str) -> None:
    with pytest.raises(InputError, match="bits or bytes\\? write 1Gbit or 1GB/s"):
        units.parse_bandwidth_bytes_per_s(text)


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("1GB", "per second? write 1GB/s"),
        ("1000", "has no unit: write it like 1GB/s or 10Gbit"),
        ("10Gbits", "'Gbits' is no unit of a bandwidth: write it like 1GB/s"),
        ("1e9B/s", "'e9B/s' is no unit of a bandwidth"),
        ("GB/s", "is not a bandwidth"),
        ("", "is not a bandwidth"),
        ("nan", "is not a bandwidth"),
        ("inf GB/s", "is not a bandwidth"),
        ("1\N{ARABIC-INDIC DIGIT THREE}B/s", "unit"),
        ("9" * 40 + "GB/s", "is not a bandwidth"),
        ("0GB/s", "must be more than 0"),
        ("-1GB/s", "must be more than 0"),
        ("0.01B/s", "too small"),
        ("99999TB/s", "too large"),
    ],
)
def test_a_bad_bandwidth_is_refused_with_advice(text: str, advice: str) -> None:
    with pytest.raises(InputError) as caught:
        units.parse_bandwidth_bytes_per_s(text)
    assert advice in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("300ms", 300),
        ("2s", 2000),
        ("10min", 600_000),
        ("1.5h", 5_400_000),
        ("2d", 172_800_000),
        ("500us", 0.5),
    ],
)
def test_a_time_is_read_as_milliseconds(text: str, ms: float) -> None:
    assert units.parse_time_ms(text) == ms


@pytest.mark.parametrize("text", ["10m", "10M", "10MS", "10Min"])
def test_minutes_or_milliseconds_is_never_guessed(text: str) -> None:
    with pytest.raises(InputError, match="minutes or milliseconds\\? write 10min or 10ms"):
        units.parse_time_ms(text)


@pytest.mark.parametrize(
    ("text", "size_bytes"), [("4096B", 4096), ("512MB", 512 * 10**6), ("4GiB", 2**32)]
)
def test_a_size_is_read_as_bytes(text: str, size_bytes: int) -> None:
    assert units.parse_size_bytes(text) == size_bytes


@pytest.mark.parametrize(
    ("text", "advice"),
    [("4G", "write 4GB or 4GiB"), ("4kb", "write 4kB or 4KiB"), ("4b", "write 4B"), ("4", "like")],
)
def test_an_ambiguous_size_is_refused(text: str, advice: str) -> None:
    with pytest.raises(InputError, match=advice):
        units.parse_size_bytes(text)


def test_a_page_rate_is_read_as_pages_per_second() -> None:
    assert units.parse_page_rate_pps("400pps") == units.parse_page_rate_pps("400 pages/s") == 400


def test_zero_passes_only_where_asked() -> None:
    assert units.parse_page_rate_pps("0pps", zero_ok=True) == 0
    with pytest.raises(InputError, match="must be more than 0"):
        units.parse_page_rate_pps("0pps")
    with pytest.raises(InputError, match="must be 0 or more"):
        units.parse_page_rate_pps("-1pps", zero_ok=True)


@pytest.mark.parametrize(
    ("printed", "expected"),
    [
        (units.format_size(2**30), "1 GiB"),
        (units.format_size(1010 * 2**20), "1010 MiB"),
        (units.format_size(0), "0 B"),
        (units.format_bandwidth(999.7e6), "1 GB/s"),
        (units.format_bit_rate(1.25e9), "10 Gbit/s"),
        (units.format_time(300), "300 ms"),
        (units.format_time(90_000), "90 s"),
        (units.format_time(119_960), "2 min"),
        (units.format_time(600_000), "10 min"),
        (units.format_time(47 * 3600e3), "47 h"),
        (units.format_time(1239 * 3600e3), "51.6 d"),
        (units.format_time(0.5), "500 us"),
        (units.format_page_rate(400), "400 pages/s"),
    ],
)
def test_three_digits_in_the_unit_that_reads_best(printed: str, expected: str) -> None:
    assert printed == expected


PAIRS = {
    "size": (units.format_size, units.parse_size_bytes, 2.0**59),
    "bandwidth": (units.format_bandwidth, units.parse_bandwidth_bytes_per_s, 1e13),
    "bit rate": (units.format_bit_rate, units.parse_bandwidth_bytes_per_s, 1e13),
    "time": (units.format_time, units.parse_time_ms, 3e10),
    "page rate": (units.format_page_rate, units.parse_page_rate_pps, 1e9),
}


@pytest.mark.parametrize("kind", PAIRS)
@given(share=st.floats(0, 1), magnitude=st.floats(0, 1))
def test_what_is_printed_can_be_read_back(kind: str, share: float, magnitude: float) -> None:
    show, read, most = PAIRS[kind]
    value = max(1, round(share * most**magnitude))
    back = read(show(value))
    assert back == pytest.approx(value, rel=0.006)
    assert show(back) == show(value)


READERS = (
    units.parse_size_bytes,
    units.parse_bandwidth_bytes_per_s,
    units.parse_time_ms,
    units.parse_page_rate_pps,
)


@given(text=st.text(max_size=60))
def test_any_text_is_read_or_refused_in_one_line(text: str) -> None:
    for read in READERS:
        with contextlib.suppress(InputError):
            assert read(text) > 0
            continue
        with pytest.raises(InputError) as caught:
            read(text)
        assert str(caught.value).isprintable()
