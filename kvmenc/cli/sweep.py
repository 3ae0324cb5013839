"""``kvmenc sweep``: what a guest's migration would do, over bandwidths and downtime limits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from kvmenc import units
from kvmenc.cli.common import (
    BANDWIDTH,
    INPUT,
    OUTPUT,
    TIME,
    Unit,
    check_outputs,
    console,
    emit_json,
    json_option,
    option,
    progress,
    write_output,
)
from kvmenc.cli.planned import parameters_of, plan_options, profile_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["command", "default_grid"]

_BANDWIDTHS = "100Mbit,1Gbit,2Gbit,2.5Gbit,5Gbit,10Gbit,25Gbit,40Gbit"
_DOWNTIME_LIMITS = "125ms,250ms,500ms,1s,2s,5s"

_EXAMPLES = """\b
Examples:
  kvmenc sweep guest.capture
  kvmenc sweep guest.capture --bandwidth 1Gbit,10Gbit --downtime-limit 300ms
  kvmenc sweep guest.capture --private-rate 20000pps --svg sweep.svg
  kvmenc sweep guest.capture --csv > sweep.csv
"""


def _listed(unit: Unit) -> Callable[[click.Context, click.Parameter, tuple[str, ...]], list[float]]:
    """Numbers given several times or with commas between: each once, growing."""

    def convert(ctx: click.Context, param: click.Parameter, given: tuple[str, ...]) -> list[float]:
        words = [word for text in given for word in text.split(",")]
        return sorted({unit.convert(word, param, ctx) for word in words})

    return convert


def default_grid() -> tuple[list[float], list[float]]:
    """Bandwidths in bytes per second, and downtime limits in milliseconds."""
    return (
        [units.parse_bandwidth_bytes_per_s(it) for it in _BANDWIDTHS.split(",")],
        [units.parse_time_ms(it) for it in _DOWNTIME_LIMITS.split(",")],
    )


@click.command(epilog=_EXAMPLES)
@click.argument("file", type=INPUT)
@option(
    "--bandwidth",
    "bandwidths",
    multiple=True,
    default=(_BANDWIDTHS,),
    metavar="LIST",
    callback=_listed(BANDWIDTH),
    show_default="100Mbit to 40Gbit",
    help="QEMU's cap and the network's speed: 1Gbit,10Gbit.",
)
@option(
    "--downtime-limit",
    "downtime_limits",
    multiple=True,
    default=(_DOWNTIME_LIMITS,),
    metavar="LIST",
    callback=_listed(TIME),
    show_default="125ms to 5s",
    help="The pauses that QEMU may plan for: 300ms,1s.",
)
@plan_options
@option("--csv", "as_csv", is_flag=True, help="A line for each cell on stdout.")
@option("--svg", type=OUTPUT, help="Draw the grid into this file.")
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    /,
    *,
    file: Path,
    bandwidths: list[float],
    downtime_limits: list[float],
    as_csv: bool,
    svg: Path | None,
    as_json: bool,
    **given: object,
) -> None:
    """Say what migrating the guest captured in FILE would do, over a grid.

    Each cell is one plan: its total time and how long the guest is paused, or "-" where it does not
    converge. Exit status 0 if any cell converges, 1 if none does.
    """
    from kvmenc.capture import load_capture  # noqa: PLC0415 - numpy is slow to import
    from kvmenc.plan import make_grid  # noqa: PLC0415

    if as_csv and as_json:
        raise click.UsageError("--csv and --json: only one of them fits on stdout")
    check_outputs(svg, inputs=[file])
    parameters, capture = parameters_of(given), load_capture(file)
    profile = profile_of(given, capture)
    with progress("planning", 1) as update:
        grid = make_grid(capture, bandwidths, downtime_limits, parameters, profile, update)
    if svg:
        from kvmenc.report.svg import draw_grid  # noqa: PLC0415

        picture = draw_grid(grid).encode()
        write_output(svg, lambda file: file.write(picture))
    if as_json:
        emit_json(grid)
    elif as_csv:
        from kvmenc.report.sweep import csv_lines  # noqa: PLC0415

        click.echo("\n".join(csv_lines(grid)))
    else:
        from kvmenc.report.sweep import print_grid  # noqa: PLC0415 - rich is slow to import

        print_grid(grid, console(svg))
    ctx.exit(0 if grid.sensitive_at else 1)
