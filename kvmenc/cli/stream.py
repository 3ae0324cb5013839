"""``kvmenc stream``: what is in a saved migration stream."""

from __future__ import annotations

import os
from contextlib import nullcontext
from typing import TYPE_CHECKING

import click

from kvmenc.cli.common import INPUT, console, emit_json, json_option, option, progress

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["command"]

_EXAMPLES = """\b
Examples:
  kvmenc stream guest.stream
  kvmenc stream guest.stream --page pc.ram:0x100000
  kvmenc stream guest.stream --against guest.capture --json | jq .against
  zcat guest.stream.gz | kvmenc stream -

\b
QEMU saves one by
  migrate "exec:cat > guest.stream"
"""

_DIALECTS = click.Choice(["qemu", "v2", "v3", "v4", "csv"])


@click.command(epilog=_EXAMPLES)
@click.argument("file", type=INPUT)
@option(
    "--dialect",
    type=_DIALECTS,
    show_default="the one that explains them",
    help="Whose encrypted records these are.",
)
@option(
    "--page",
    "pages",
    multiple=True,
    metavar="BLOCK:OFFSET",
    help="History of the page with this byte; may be given again.",
)
@option(
    "--against", type=INPUT, metavar="CAPTURE", help="Which pages took the wrong road by a capture."
)
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    *,
    file: Path,
    dialect: str | None,
    pages: tuple[str, ...],
    against: Path | None,
    as_json: bool,
) -> None:
    """Show what is in a saved migration stream: pages by road, RAMBlock and round, every byte.

    A stream does not mark QEMU's syncs: rounds are the fewest that what was sent allows. Exit
    status 1: with --against, pages took the wrong road.
    """
    from kvmenc.capture import open_capture  # noqa: PLC0415 - numpy is slow to import
    from kvmenc.report.stream import print_stream  # noqa: PLC0415 - rich likewise
    from kvmenc.stream import Dialect, WatchedPage, summarize  # noqa: PLC0415

    watched = [WatchedPage.parse(it) for it in pages]
    size = file.stat().st_size if os.access(file, os.R_OK) and file.is_file() else 0
    with (
        open_capture(against) if against else nullcontext() as capture,
        progress(f"reading {file.name}", size) as update,
    ):
        report = summarize(
            file,
            dialect=Dialect(dialect) if dialect else None,
            pages=watched,
            against=capture,
            against_name=str(against or ""),
            progress=update,
        )
    if as_json:
        emit_json(report)
    else:
        print_stream(report, console())
    ctx.exit(1 if report.against and report.against.wrong_pages else 0)
