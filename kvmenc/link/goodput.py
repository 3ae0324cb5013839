"""What TCP's user gets of a rate, after all headers. Bytes and bytes per second throughout.

Assumed: one connection with full packets and without loss, time stamps on (as Linux has them), no
other options, no jumbo segments on the wire; acknowledgements go the other way.
"""

from __future__ import annotations

__all__ = [
    "ETHERNET_HEADER_BYTES",
    "FRAMING_BYTES",
    "goodput_bytes_per_s",
    "payload_bytes",
    "smallest_mtu_bytes",
]

IPV4_HEADER_BYTES = 20
IPV6_HEADER_BYTES = 40
TCP_HEADER_BYTES = 20
#: RFC 7323: 10 bytes, padded.
TIMESTAMPS_BYTES = 12
#: Without the VLAN tag.
ETHERNET_HEADER_BYTES = 14
#: IEEE 802.3: preamble and start delimiter 8, check sequence 4, gap between packets 12.
FRAMING_BYTES = 24


def smallest_mtu_bytes(*, ipv6: bool) -> int:
    """What every network must carry (RFC 791, RFC 8200)."""
    return 1280 if ipv6 else 68


def payload_bytes(mtu_bytes: int, *, ipv6: bool) -> int:
    """Of a full packet, for TCP's user."""
    ip_bytes = IPV6_HEADER_BYTES if ipv6 else IPV4_HEADER_BYTES
    return mtu_bytes - ip_bytes - TCP_HEADER_BYTES - TIMESTAMPS_BYTES


def goodput_bytes_per_s(
    rate_bytes_per_s: float, load_bytes_per_s: float, payload: int, packet: int
) -> float:
    """What is left of a rate, for TCP's user.

    Args:
        rate_bytes_per_s: what passes in all.
        load_bytes_per_s: what of it is in use.
        payload: bytes for the user in a full packet.
        packet: bytes of it as the rate counts them.
    """
    return max(0.0, rate_bytes_per_s - load_bytes_per_s) * payload / packet
