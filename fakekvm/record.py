"""The command ``fakekvm record``: the file that it writes, and so all of its work, is kvmenc's."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from fakekvm.completions import command_argument

__all__ = ["command"]

_INTERRUPTED = 130

_EXAMPLES = """\b
Examples:
  fakekvm record -o host.recording -- kvmenc probe
  kvmenc probe --backend replay:host.recording
"""


@click.command(
    "record",
    context_settings={"allow_interspersed_args": False},
    short_help="A program's calls of the real KVM, kept for replay.",
    epilog=_EXAMPLES,
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default="kvm.recording",
    show_default=True,
    metavar="FILE",
    help="The recording, for kvmenc's --backend replay:FILE.",
)
@click.option(
    "--record-contents",
    "contents",
    is_flag=True,
    help="Keep secrets as they are: session keys, packets, pages that go into a guest, what it "
    "hands to its VMM, vector registers. Whoever has the file has them.",
)
@command_argument
def command(output: Path, *, contents: bool, command: tuple[str, ...]) -> None:
    """Run COMMAND on the real KVM, and keep what it is answered.

    Any 64-bit program will do, unchanged, and what it starts too. Of each vCPU the first 10,000
    runs are kept, and later ones counted. Exits with the program's status; 128 + N if signal N
    ended it; 3 if this machine cannot do it; 4 if the file cannot be written.
    """
    try:
        sys.exit(_record(command, output, contents=contents))
    except KeyboardInterrupt:  # before the program was there
        _say("interrupted")
        sys.exit(_INTERRUPTED)


def _record(command: tuple[str, ...], output: Path, *, contents: bool) -> int:
    from kvmenc.errors import KvmencError  # noqa: PLC0415 - the fake alone needs nothing of it
    from kvmenc.recorder import record  # noqa: PLC0415

    try:
        return record(command, output, contents=contents, say=_say)
    except KvmencError as error:
        _say(str(error))
        return error.exit_code


def _say(text: str) -> None:
    click.echo(f"fakekvm: {text}", err=True)
