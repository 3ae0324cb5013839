"""``kvmenc layout``: where a QEMU's guest has its memory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from kvmenc.cli.common import console, emit_json, json_option
from kvmenc.cli.monitor import monitor_options, open_monitor

if TYPE_CHECKING:
    from kvmenc.qemu.join import QemuLayout

__all__ = ["command"]

_EXAMPLES = """\b
Examples:
  kvmenc layout --qmp /run/guest.qmp
  kvmenc layout --domain guest
  kvmenc layout --mtree mtree.txt --ramblock ramblock.txt
  kvmenc layout --trace qemu.log --ramblock ramblock.txt --json | jq .pieces

\b
The texts are what the human monitor answers to `info mtree -f` and to
`info ramblock`; the log is of a QEMU started with
-trace enable=kvm_set_user_memory -D qemu.log.
"""

_FILE = click.Path(path_type=Path)


@click.command(epilog=_EXAMPLES)
@monitor_options
@click.option("--mtree", type=_FILE, metavar="FILE", help="Saved `info mtree -f`.")
@click.option("--ramblock", type=_FILE, metavar="FILE", help="Saved `info ramblock`.")
@click.option("--trace", type=_FILE, metavar="FILE", help="Log of kvm_set_user_memory.")
@json_option
def command(
    *,
    qmp: Path | None,
    domain: str | None,
    mtree: Path | None,
    ramblock: Path | None,
    trace: Path | None,
    as_json: bool,
) -> None:
    """Show the memslots and RAMBlocks of a QEMU's guest, and which lies where in which.

    From a running QEMU (which is only asked, never changed), or from saved text. Only a trace tells
    KVM's slot ids and dirty logs; before QEMU 8.0 it needs --mtree beside --ramblock. Warns about
    what costs at migration.
    """
    if qmp or domain:
        if mtree or ramblock or trace:
            raise click.UsageError(
                "--qmp and --domain ask a running QEMU for everything: they go without files"
            )
        layout, source = _ask(qmp, domain), str(qmp or domain)
    else:
        if not ramblock or not (mtree or trace):
            raise click.UsageError(
                "give --qmp or --domain, or --ramblock with --mtree, --trace or both"
            )
        layout, source = _read(ramblock, mtree, trace), str(trace or mtree)
    from kvmenc.report.layout import LayoutReport, print_layout  # noqa: PLC0415 - rich is slow

    report = LayoutReport.of(layout, source)
    if as_json:
        emit_json(report)
    else:
        print_layout(report, console())


def _ask(qmp: Path | None, domain: str | None) -> QemuLayout:
    from kvmenc.qemu.live import read_layout  # noqa: PLC0415 - numpy is slow to import

    with open_monitor(qmp, domain) as monitor:
        return read_layout(monitor)


def _read(ramblock: Path, mtree: Path | None, trace: Path | None) -> QemuLayout:
    from kvmenc.qemu.join import from_mtree, from_trace  # noqa: PLC0415 - numpy is slow to import
    from kvmenc.qemu.mtree import parse_mtree  # noqa: PLC0415
    from kvmenc.qemu.ramblock import parse_ramblock  # noqa: PLC0415
    from kvmenc.qemu.text import read_text  # noqa: PLC0415
    from kvmenc.qemu.trace import parse_trace  # noqa: PLC0415

    blocks = parse_ramblock(read_text(ramblock))
    views = parse_mtree(read_text(mtree)) if mtree else None
    if trace:
        return from_trace(parse_trace(read_text(trace)), blocks, views)
    return from_mtree(views or [], blocks)
