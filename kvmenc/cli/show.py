"""``kvmenc show``: what is in a capture."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from kvmenc.cli.common import INPUT, console, emit_json, json_option

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["command", "show"]

_EXAMPLES = """\b
Examples:
  kvmenc show guest.capture
  kvmenc show guest.capture --json | jq .capture.curve

\b
A capture is a ZIP, and an .npz to NumPy:
  unzip -p guest.capture capture.json
  python -c 'import numpy; print(numpy.load("guest.capture")["dirty/0"])'
"""


@click.command(epilog=_EXAMPLES)
@click.argument("file", type=INPUT)
@json_option
def command(*, file: Path, as_json: bool) -> None:
    """Show what is in a capture: where it is from, counts, windows, the curve, a memory map.

    Counts are of pages, by RAMBlock. The curve says how many pages were written at least once
    within a time. Bitmaps are read where the file holds them.
    """
    show(file, as_json=as_json)


def show(file: Path, *, as_json: bool) -> None:
    """Show a capture file.

    Raises:
        CaptureError: it cannot be used.
    """
    from kvmenc.capture import open_capture  # noqa: PLC0415 - numpy is slow to import
    from kvmenc.report.show import ShowReport, print_show  # noqa: PLC0415 - rich likewise

    with open_capture(file) as capture:
        report = ShowReport.of(capture)
    if as_json:
        emit_json(report)
    else:
        print_show(report, console())
