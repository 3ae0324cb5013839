"""``kvmenc report``: a capture and its plan as one HTML page."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import click

from kvmenc import units
from kvmenc.cli.common import (
    INPUT,
    OUTPUT,
    Unit,
    check_outputs,
    downtime_limit_option,
    emit_json,
    json_option,
    link_option,
    max_bandwidth_option,
    progress,
    write_output,
)
from kvmenc.cli.planned import (
    advised_plan,
    link_found,
    parameters_of,
    plan_options,
    profile_of,
    to_option,
)
from kvmenc.cli.sweep import default_grid

if TYPE_CHECKING:
    from pathlib import Path

    from kvmenc.capture import Capture
    from kvmenc.plan import Plan
    from kvmenc.plan.grid import Grid
    from kvmenc.report.page.document import Written

__all__ = ["command"]

_EXAMPLES = """\b
Examples:
  kvmenc report guest.capture -o report.html
  kvmenc report guest.capture -o report.html --downtime-limit 1s --link 10Gbit
  kvmenc report guest.capture -o report.html --detail 200MiB
"""


@click.command(epilog=_EXAMPLES)
@click.argument("file", type=INPUT)
@click.option(
    "-o",
    "--output",
    type=OUTPUT,
    required=True,
    help="Write the page into this file.",
)
@click.option(
    "--detail",
    "room_bytes",
    type=Unit("size", functools.partial(units.parse_size_bytes, zero_ok=True)),
    default="16MiB",
    show_default=True,
    help="What single pages of the memory map may take in it.",
)
@max_bandwidth_option
@link_option
@to_option
@downtime_limit_option
@plan_options
@json_option
def command(*, file: Path, output: Path, room_bytes: float, as_json: bool, **given: object) -> None:
    """Write one HTML page on the guest captured in FILE, to look at and to send.

    The plan and what would make it converge, its rounds, the verdict over a grid of bandwidths and
    downtime limits, what the guest writes over time, and a map of its memory down to single pages.
    The page needs nothing but a browser, and no network. Exit status 0 once it is written,
    whatever the plan's verdict.
    """
    from kvmenc.atomic import names_stdout  # noqa: PLC0415
    from kvmenc.capture import open_capture  # noqa: PLC0415 - numpy is slow to import
    from kvmenc.report.page.document import Written, page  # noqa: PLC0415 - rich likewise
    from kvmenc.report.page.memory import Memory  # noqa: PLC0415

    check_outputs(output, inputs=[file])
    with open_capture(file) as capture:
        plan, grid = _planned(capture.capture, given)
        with progress("packing the bitmaps", capture.capture.npages) as update:
            memory = Memory.of(capture, round(room_bytes), update)
    content = page(memory, plan, grid)
    write_output(output, lambda file: file.write(content))
    written = Written.of(str(output), len(content), memory, plan)
    if as_json:
        emit_json(written)
    else:
        click.echo("\n".join(_words(written)), err=names_stdout(output))


def _planned(capture: Capture, given: dict[str, object]) -> tuple[Plan, Grid]:
    from kvmenc.plan import make_grid  # noqa: PLC0415

    assumed = link_found(given)
    parameters, profile = parameters_of(given), profile_of(given, capture)
    plan = advised_plan(capture, parameters, profile, assumed)
    bandwidths, limits_ms = default_grid()
    bandwidths = sorted({*bandwidths, plan.inputs.max_bandwidth_bytes_per_s})
    limits_ms = sorted({*limits_ms, plan.inputs.downtime_limit_ms})
    with progress("planning the grid", 1) as update:
        return plan, make_grid(capture, bandwidths, limits_ms, parameters, profile, update)


def _words(written: Written) -> list[str]:
    lines = [f"{written.path}: {units.format_size(written.size_bytes)}; open it in a browser."]
    if written.left_out_stretches:
        left_out = f"{written.left_out_stretches:,} of {written.stretches:,} stretches"
        lines.append(f"Left out of the map, for size: single pages in {left_out}.")
        lines.append("--detail makes more room.")
    return lines
