"""Names and addresses, as users write them."""

from __future__ import annotations

import socket

import pytest

from kvmenc.errors import HostError, InputError
from kvmenc.link.resolve import Destination, resolve


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("192.0.2.1", Destination("192.0.2.1")),
        ("2001:DB8:0::1", Destination("2001:db8::1")),
        ("[2001:db8::1]", Destination("2001:db8::1")),
        ("::ffff:192.0.2.1", Destination("192.0.2.1")),
        ("fe80::1%eth0", Destination("fe80::1", zone="eth0")),
    ],
)
def test_an_address_is_itself(host: str, expected: Destination) -> None:
    assert resolve(host) == expected


@pytest.mark.parametrize(
    ("host", "complaint"),
    [
        ("", "not a host"),
        ("a b", "not a host"),
        ("a\0b", "not a host"),
        ("::%ff\x10[2J", "not a host"),
        ("fe80::1%" + "a" * 2000, "not a host"),
        ("host/24", "not a host"),
        ("x" * 254, "not a host"),
        ("x" * 64 + ".example", "not a host"),
        ("192.0.2.1:4444", "without port"),
        ("tcp:192.0.2.1:4444", "without port"),
        ("fe80::1", "as in fe80::1%eth0"),
        ("224.0.0.1", "not one machine's"),
        ("ff02::1", "not one machine's"),
        ("255.255.255.255", "not one machine's"),
        ("0.0.0.0", "not one machine's"),
        ("::", "not one machine's"),
    ],
)
def test_nonsense_is_refused_in_one_line(host: str, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint) as caught:
        resolve(host)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 160


def answers(*addresses: str) -> list[tuple[object, ...]]:
    return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in addresses]


def test_all_addresses_of_a_name_are_kept_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    found = answers("192.0.2.9", "192.0.2.1", "192.0.2.9")
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_more: found)
    assert resolve("host2") == Destination("192.0.2.9", ("192.0.2.1",))


@pytest.mark.parametrize(
    ("error", "expected"),
    [(socket.EAI_NONAME, InputError), (socket.EAI_AGAIN, HostError), (socket.EAI_FAIL, HostError)],
)
def test_a_name_that_is_not_there_is_told_from_servers_that_are_not(
    error: int, expected: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_args: object, **_more: object) -> None:
        raise socket.gaierror(error, "why")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(expected, match=r"host2: .*why"):
        resolve("host2")
