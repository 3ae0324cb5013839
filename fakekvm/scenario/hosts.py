"""The host of a scenario: a name, or a table with a named one and what is different."""

from __future__ import annotations

import errno
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from fakekvm.host import FirmwareSpeed, Host, host_named, host_names
from fakekvm.revisions import REVISIONS
from fakekvm.scenario.kinds import FLAG, TEXT, Kind, choice, number, whole

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fakekvm.scenario.tables import Table

__all__ = ["read_host"]

_NO_ERRNO = "none"
_ERRNOS = ("EACCES", "EBUSY", "ENODEV", "ENOENT", "ENXIO", "EPERM")
_KEYS: dict[str, Kind[Any]] = {
    "sev": FLAG,
    "csv": FLAG,
    "chip": TEXT,
    "vendor": choice(["GenuineIntel", "AuthenticAMD", "HygonGenuine"]),
    "enc_revision": choice(list(REVISIONS)),
    "max_gpa_bits": whole(32, 52),
    "ring_reserved_entries": whole(0, 4096),
    "ring_logs_every_write": FLAG,
}
_CAPABILITY = whole(0, (1 << 31) - 1)
_RATE = number(0, 1e9)


def read_host(scenario: Table) -> Host:
    """The key ``host``, or the table [host]; without either a mainline host.

    Raises:
        ScenarioError: something is wrong with it.
    """
    name = choice(host_names())
    if not scenario.holds_table("host"):
        return host_named(scenario.take("host", name, "mainline"))
    table = scenario.table("host")
    base = host_named(table.take("base", name, "mainline"))
    changes: dict[str, Any] = {key: table.take(key, _KEYS[key], None) for key in _KEYS}
    changes = {key: value for key, value in changes.items() if value is not None}
    opening = table.take("open_errno", choice([_NO_ERRNO, *_ERRNOS]), "")
    if opening:
        changes["open_errno"] = getattr(errno, opening, 0)
    changes["capabilities"] = _capabilities(table, base.capabilities)
    changes["firmware"] = _firmware(table, base.firmware)
    table.done()
    return replace(base, **changes)


def _capabilities(host: Table, base: Mapping[int, int]) -> Mapping[int, int]:
    table = host.table("capabilities")
    values = dict(base)
    for key in table.items():
        if not (key.isascii() and key.isdigit() and len(key) < 10):
            raise table.wrong(key, "this is no capability", "its number, as in KVM_CHECK_EXTENSION")
        values[int(key)] = table.take(key, _CAPABILITY)
    return MappingProxyType(values)


def _firmware(host: Table, base: FirmwareSpeed) -> FirmwareSpeed:
    table = host.table("firmware")
    speed = FirmwareSpeed(
        send=table.take("send", _RATE, base.send),
        receive=table.take("receive", _RATE, base.receive),
        batch=table.take("batch", _RATE, base.batch),
    )
    table.done()
    return speed
