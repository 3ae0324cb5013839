"""``kvmenc check-order``: every interleaving of guest and host, for each order of the two syncs."""

from __future__ import annotations

from pathlib import Path

import click

from kvmenc.cli.common import Whole, console, emit_json, json_option, option, progress

__all__ = ["command"]

_EXAMPLES = """\b
Examples:
  kvmenc check-order --quick
  kvmenc check-order --timelines | less
  kvmenc check-order --svg timelines/
"""


@click.command(epilog=_EXAMPLES)
@option("--quick", is_flag=True, help="One page and vCPU, two live rounds: seconds.")
@option(
    "--rounds",
    type=Whole(1, 6),
    show_default="3, with --quick 2",
    help="Live rounds before the guest is stopped.",
)
@option("--timelines", is_flag=True, help="Tell all shortest wrong runs, not two of them.")
@option("--svg", type=click.Path(path_type=Path), help="Draw them into this directory.")
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    /,
    *,
    quick: bool,
    rounds: int | None,
    timelines: bool,
    svg: Path | None,
    as_json: bool,
) -> None:
    """Say which ways to sync dirty and private pages can send a page by the wrong road.

    All interleavings of a guest that writes and flips pages with a host that reads both bitmaps,
    page contents, and sends: for each order of the readings and each order in which guests flip,
    announce and write. kvmenc's own sync is run, not modelled. Exit status 0 if that is never
    wrong where a host can be right, 1 if it is.
    """
    from dataclasses import replace  # noqa: PLC0415 - --help is quick without these

    from kvmenc.ordering import FULL, QUICK, check  # noqa: PLC0415
    from kvmenc.report.sequence import draw_into, made_directory  # noqa: PLC0415

    directory = made_directory(svg) if svg else None
    bounds = QUICK if quick else FULL
    if rounds:
        bounds = replace(bounds, live_rounds=rounds)
    with progress("searching", 1) as update:
        found = check(bounds, update)
    if directory:
        draw_into(directory, found.timelines)
    if as_json:
        emit_json(found)
    else:
        from kvmenc.report.order import print_order_check  # noqa: PLC0415

        print_order_check(found, console(), timelines=timelines)
    ctx.exit(1 if found.wrong_by_own else 0)
