"""The ways to a running QEMU, on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable

    from kvmenc.qemu.monitor import Monitor

__all__ = ["monitor_options", "open_monitor"]

_QMP = click.option(
    "--qmp",
    type=click.Path(path_type=Path),
    metavar="SOCK",
    help="QMP socket of a running QEMU.",
)
_DOMAIN = click.option(
    "--domain", metavar="NAME", help="Domain of libvirt, which holds the QMP socket."
)


def monitor_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --qmp and --domain."""
    return _QMP(_DOMAIN(command))


def open_monitor(qmp: Path | None, domain: str | None) -> Monitor:
    """What the user chose of the two; a context manager that closes it.

    Raises:
        click.UsageError: both, or none.
        HostError: nobody answers there.
    """
    from kvmenc.qemu.qmp import Qmp  # noqa: PLC0415 - asyncio is slow to import
    from kvmenc.qemu.virsh import Virsh  # noqa: PLC0415

    if qmp and domain:
        raise click.UsageError("--qmp and --domain are two ways to one QEMU: give one of them")
    if qmp:
        return Qmp(qmp)
    if domain:
        return Virsh(domain)
    raise click.UsageError("give --qmp SOCK or --domain NAME")
