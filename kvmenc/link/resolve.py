"""From what the user calls a host to addresses."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass

from kvmenc.errors import HostError, InputError

__all__ = ["Destination", "resolve"]

_MOST_CHARACTERS = 300  # a name's 253, or an address with brackets and a device


@dataclass(frozen=True, slots=True)
class Destination:
    """Where to go.

    Attributes:
        address: the one to try first.
        others: those of the same name, in the order of RFC 6724.
        zone: of a link-local address: the device, by name or number; None for other addresses.
    """

    address: str
    others: tuple[str, ...] = ()
    zone: str | None = None

    @property
    def ipv6(self) -> bool:
        """Which of the two protocols."""
        return ":" in self.address


def resolve(host: str) -> Destination:
    """Find the addresses of a host.

    Raises:
        InputError: it is no host name, there is no such host, or it is not one machine's address.
        HostError: the name servers cannot be asked.
    """
    if not host.isprintable() or len(host) > _MOST_CHARACTERS:
        raise _nonsense(host)
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    try:
        address = ipaddress.ip_address(bare)
    except ValueError:
        _refuse_nonsense(bare)
        found = _look_up(bare)
        return Destination(found[0], tuple(found[1:]))
    return _literal(address, host)


def _refuse_nonsense(name: str) -> None:
    if ":" in name:
        raise InputError(f"{name[:60]!r} is no address; give the host without port or protocol")
    if not name or len(name) > 253 or set(name) & set(" /,@?#%"):
        raise _nonsense(name)


def _nonsense(name: str) -> InputError:
    return InputError(f"{name[:60]!r} is not a host: give a name or an address")


def _literal(address: ipaddress.IPv4Address | ipaddress.IPv6Address, host: str) -> Destination:
    if address.is_multicast or address.is_unspecified or str(address) == "255.255.255.255":
        raise InputError(f"{host}: this address is not one machine's")
    zone = address.scope_id if isinstance(address, ipaddress.IPv6Address) else None
    if isinstance(address, ipaddress.IPv6Address) and address.is_link_local and zone is None:
        raise InputError(f"{host} is link-local: say by which device, as in {host}%eth0")
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        return Destination(str(address.ipv4_mapped))
    return Destination(str(address).partition("%")[0], zone=zone)


def _look_up(name: str) -> list[str]:
    try:
        answers = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        if error.errno in {socket.EAI_AGAIN, socket.EAI_SYSTEM, socket.EAI_FAIL}:
            raise HostError(
                f"{name}: the name cannot be looked up now: {error.strerror}"
            ) from error
        raise InputError(f"{name}: there is no such host: {error.strerror}") from error
    except UnicodeError as error:
        raise InputError(f"{name[:60]!r} is not a host name") from error
    return list(dict.fromkeys(str(answer[4][0]) for answer in answers))
