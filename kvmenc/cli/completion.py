"""``kvmenc completion``: what makes a shell complete commands, options, choices and files."""

from __future__ import annotations

from typing import Literal

import click
import msgspec

from kvmenc.cli.common import emit_json, json_option

__all__ = ["Completion", "command"]

_SHELLS = ("bash", "zsh", "fish")

_EXAMPLES = """\b
Examples:
  kvmenc completion bash > ~/.local/share/bash-completion/completions/kvmenc
  kvmenc completion zsh > "${fpath[1]}/_kvmenc"
  kvmenc completion fish > ~/.config/fish/completions/kvmenc.fish

\b
For this session only:
  eval "$(kvmenc completion bash)"
  eval "$(kvmenc completion bash --program fakekvm)"
"""


class Completion(msgspec.Struct, frozen=True, kw_only=True):
    """A script for a shell.

    Attributes:
        schema: ``kvmenc.completion/1``.
        shell: ``bash``, ``zsh`` or ``fish``.
        program: whose words it completes.
        script: the text.
    """

    schema: Literal["kvmenc.completion/1"] = "kvmenc.completion/1"
    shell: str
    program: str
    script: str


@click.command(epilog=_EXAMPLES)
@click.argument("shell", type=click.Choice(_SHELLS))
@click.option(
    "--program",
    type=click.Choice(["kvmenc", "fakekvm"]),
    default="kvmenc",
    show_default=True,
    help="Whose words are completed.",
)
@json_option
def command(*, shell: str, program: str, as_json: bool) -> None:
    """Print a script that makes SHELL complete commands, options, their values, and files.

    The script asks the program itself at each Tab, so it needs no renewal after an update.
    """
    script = _script(shell, program)
    if as_json:
        emit_json(Completion(shell=shell, program=program, script=script))
    else:
        click.echo(script, nl=False)


def _script(shell: str, program: str) -> str:
    from click.shell_completion import get_completion_class  # noqa: PLC0415 - so is this

    made_by = get_completion_class(shell)
    if made_by is None:  # a choice of ours that click has dropped
        raise click.UsageError(f"click writes no script for {shell}")
    # The script holds names only: the program completes by itself, when it is asked.
    return made_by(click.Command(program), {}, program, f"_{program.upper()}_COMPLETE").source()
