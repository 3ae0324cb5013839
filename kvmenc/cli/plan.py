"""``kvmenc plan``: what migrating a guest would do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from kvmenc.cli.backend import backend_option, carried
from kvmenc.cli.common import (
    INPUT,
    console,
    downtime_limit_option,
    emit_json,
    json_option,
    link_option,
    max_bandwidth_option,
    progress,
    say,
)
from kvmenc.cli.planned import (
    advised_plan,
    described_by,
    guest_options,
    link_found,
    parameters_of,
    plan_options,
    profile_of,
    to_option,
)

if TYPE_CHECKING:
    from pathlib import Path

    from kvmenc.capture import Capture
    from kvmenc.cli.backend import Replay
    from kvmenc.scratchrun import BackendName

__all__ = ["command"]

_EXAMPLES = """\b
Examples:
  kvmenc plan guest.capture
  kvmenc plan guest.capture --max-bandwidth 1GB/s --link 10Gbit
  kvmenc plan guest.capture --downtime-limit 1s --private-rate 400pps
  kvmenc plan guest.capture --qemu 10.0 --auto-converge
  kvmenc plan --to host2.example.org --max-bandwidth 1GB/s guest.capture
  kvmenc plan --memory 64GiB --zero 40% --dirty-rate 300MB/s --link 10Gbit
  kvmenc plan --backend fake --time-limit 10min --json | jq .verdict
"""


@click.command(epilog=_EXAMPLES)
@click.argument("file", required=False, type=INPUT)
@max_bandwidth_option
@link_option
@to_option
@downtime_limit_option
@plan_options
@guest_options
@backend_option
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    /,
    *,
    file: Path | None,
    backend: BackendName | Replay | None,
    as_json: bool,
    **given: object,
) -> None:
    """Say what migrating a guest would do: the one captured in FILE, or a scratch guest.

    Which page goes which road (normal, zero, encrypted) in which round, how long it takes, how long
    the guest is paused, and whether it converges at all: exit status 0 if so, 1 if not. Without
    FILE and --memory a guest is run and watched for three seconds, on /dev/kvm if it opens.
    """
    if file and backend:
        raise click.UsageError("a FILE was captured already: --backend goes without one")
    assumed = link_found(given)
    described = described_by(given)
    if described and (file or backend):
        raise click.UsageError("a described guest (--memory) goes without FILE and --backend")
    parameters = parameters_of(given)
    capture = described or _capture(file, backend)
    plan = advised_plan(capture, parameters, profile_of(given, capture), assumed)
    if as_json:
        emit_json(plan)
    else:
        from kvmenc.report.terminal import print_plan  # noqa: PLC0415 - rich is slow to import

        print_plan(plan, console())
    ctx.exit(0 if plan.verdict == "converges" else 1)


def _capture(file: Path | None, backend: BackendName | Replay | None) -> Capture:
    if file:
        from kvmenc.capture import load_capture  # noqa: PLC0415

        return load_capture(file)
    from kvmenc.scratchrun import (  # noqa: PLC0415
        SYNC_AT_MS,
        best_backend,
        open_scratch_backend,
        record,
    )

    with (
        progress("watching a scratch guest", SYNC_AT_MS[-1]) as update,
        carried(backend or best_backend(say), None, open_scratch_backend) as carrier,
    ):
        return record(carrier, lambda sample: update(sample.t_ms))
