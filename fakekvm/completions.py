"""What a shell completes behind ``fakekvm``, and the argument that both of its commands take."""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem

__all__ = ["command_argument", "complete_scenario"]


def complete_scenario(
    _ctx: click.Context, _param: click.Parameter, incomplete: str
) -> list[CompletionItem[str]]:
    """Scenarios that come with the package; a file where none begins so."""
    from fakekvm.scenario import names  # noqa: PLC0415 - only at a Tab

    found = [CompletionItem(name) for name in names() if name.startswith(incomplete)]
    return found or [CompletionItem(incomplete, type="file")]


def _complete_file(
    _ctx: click.Context, _param: click.Parameter, incomplete: str
) -> list[CompletionItem[str]]:
    return [CompletionItem(incomplete, type="file")]


#: The program and its arguments, which are its own.
command_argument = click.argument(
    "command", nargs=-1, required=True, type=click.UNPROCESSED, shell_complete=_complete_file
)
