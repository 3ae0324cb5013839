"""``kvmenc link``: the way to a destination, and what TCP gets of it."""

from __future__ import annotations

import click

from kvmenc.cli.common import console, emit_json, json_option

__all__ = ["command"]

_EXAMPLES = """\b
Examples:
  kvmenc link --to 192.0.2.7
  kvmenc link --to host2.example.org --json | jq .goodput_bytes_per_s
  kvmenc link --to fe80::1%eth0 --netns migration
"""


@click.command(epilog=_EXAMPLES)
@click.option("--to", "host", required=True, metavar="HOST", help="Name or address.")
@click.option("--netns", metavar="NAME|PATH", help="Look inside this network namespace.")
@json_option
def command(*, host: str, netns: str | None, as_json: bool) -> None:
    """Say what one TCP connection to HOST gets at most.

    The kernel is asked for the route, the devices on the way, their speed, MTU, shaping, and load
    within one second. Nothing is sent to HOST, and nothing is changed. Only --netns needs root.
    """
    from kvmenc.link import look  # noqa: PLC0415 - pyroute2 is slow to import

    link = look(host, netns)
    if as_json:
        emit_json(link)
    else:
        from kvmenc.report.link import print_link  # noqa: PLC0415 - rich is slow to import

        print_link(link, console())
