"""``kvmenc demo``: the main job, start to end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from kvmenc.cli.backend import backend_option, carried, record_options, wished_record
from kvmenc.cli.common import OUTPUT, check_outputs, console, emit_json, json_option, progress, say

if TYPE_CHECKING:
    from pathlib import Path

    from kvmenc.cli.backend import Replay
    from kvmenc.scratchrun import BackendName

__all__ = ["command"]

_EXAMPLES = """\b
Examples:
  kvmenc demo
  kvmenc demo --backend fake
  kvmenc demo -o demo.capture && kvmenc show demo.capture
  kvmenc demo --json | jq .plan.verdict
"""


@click.command(epilog=_EXAMPLES)
@backend_option
@record_options
@click.option(
    "-o",
    "--output",
    type=OUTPUT,
    help="Keep the capture in this file.",
)
@json_option
def command(
    *,
    backend: BackendName | Replay | None,
    record: Path | None,
    record_contents: bool,
    output: Path | None,
    as_json: bool,
) -> None:
    """Watch a guest that writes and flips pages, and say what migrating it would do.

    On a machine whose /dev/kvm opens the guest is real code on a real vCPU; elsewhere it is fake.
    The output says which parts were real.
    """
    from kvmenc.capture import save_capture  # noqa: PLC0415 - slow to import
    from kvmenc.report.demo import Demo, print_demo  # noqa: PLC0415
    from kvmenc.scratchrun import (  # noqa: PLC0415
        SYNC_AT_MS,
        ScratchRun,
        best_backend,
        open_scratch_backend,
    )

    wished = wished_record(record, contents=record_contents)
    check_outputs(output, record)
    with (
        carried(backend or best_backend(say), wished, open_scratch_backend) as carrier,
        ScratchRun(carrier) as run,
    ):
        with progress("watching the guest", SYNC_AT_MS[-1]) as update:
            for sample in run.syncs():
                update(sample.t_ms)
        capture, bitmaps = run.capture()
    demo = Demo.of(run.parts, capture)
    if output:
        save_capture(capture, output, bitmaps)
    if as_json:
        emit_json(demo)
    else:
        print_demo(demo, console(output))
