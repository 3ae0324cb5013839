"""``kvmenc probe``: what this host's KVM can do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from kvmenc.cli.backend import backend_option
from kvmenc.cli.common import console, emit_json, json_option, progress

if TYPE_CHECKING:
    from kvmenc.scratchrun import BackendName

__all__ = ["command"]

_EXAMPLES = """\b
Examples:
  kvmenc probe
  kvmenc probe --self-test
  kvmenc probe --json | jq '.verdicts[] | select(.answer == "no")'
"""


@click.command(epilog=_EXAMPLES)
@backend_option
@click.option("--self-test", is_flag=True, help="Run scratch guests and check their dirty logs.")
@json_option
@click.pass_context
def command(
    ctx: click.Context, *, backend: BackendName | None, self_test: bool, as_json: bool
) -> None:
    """List what this host's KVM says of itself, and what follows for dirty and private pages.

    Nothing on the host is changed: ioctls are tried on a scratch VM, with NULL arguments. Exit
    status 1 if a check of the self-test fails, 3 if there is no KVM.
    """
    from kvmenc.probe.result import open_backend, probe  # noqa: PLC0415 - slow to import
    from kvmenc.report.probe import print_probe  # noqa: PLC0415

    with progress("probing", 1) as update:
        result = probe(open_backend(backend or "local"), self_test=self_test, update=update)
    if as_json:
        emit_json(result)
    else:
        print_probe(result, console())
    ctx.exit(0 if result.passed else 1)
