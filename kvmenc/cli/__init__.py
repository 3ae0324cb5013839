"""The ``kvmenc`` command: finds the subcommand, turns errors into one line and an exit code.

A command is imported when it is called, so that ``kvmenc --help`` is quick.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
from importlib import import_module
from typing import TYPE_CHECKING, Any, NoReturn

import click

from kvmenc import package_version
from kvmenc.errors import KvmencError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

__all__ = ["main", "root"]

#: Subcommand -> what it does. Each is ``command`` in the module of its name beside this one, with
#: ``_`` for ``-``.
COMMANDS = {
    "backtest": "Predictions against migrations that really happened.",
    "capture": "What the guest of a running QEMU dirties, and how fast.",
    "check-order": "Every interleaving of guest and host, for each sync order.",
    "completion": "A script by which a shell completes words and files.",
    "demo": "The main job, start to end, on the best KVM at hand.",
    "dry-run": "A rehearsal: pages really moved, and all compared.",
    "layout": "Where a QEMU's guest has its memory: slots and RAMBlocks.",
    "link": "The way to a host, and what one TCP connection gets of it.",
    "migrate": "The real migration, beside what was predicted of it.",
    "plan": "What a migration would do: rounds, time, pause, verdict.",
    "probe": "What this host's KVM can do, and what that means.",
    "report": "A capture and its plan as one HTML page.",
    "show": "What is in a capture: memory map, counts, curve.",
    "stream": "What is in a saved migration stream, page by page.",
    "sweep": "Plans over a grid of bandwidths and downtime limits.",
}

EXIT_UNWRITABLE = 4
EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141
#: Files that options name have their own error: this is what is printed.
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
#: Apart from 1, which is an answer.
EXIT_BUG = 70


class Root(click.Group):
    """Lists commands from a table; all errors of commands pass through here."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Names, in the order of the help."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import a command."""
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f"kvmenc.cli.{cmd_name.replace('-', '_')}")
        command: click.Command = module.command
        command.name = cmd_name  # in their modules all are called `command`
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click; a name that is none gets the ones that are like it."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            from difflib import get_close_matches  # noqa: PLC0415 - only for a slip of the pen

            like = get_close_matches(args[0].lower(), COMMANDS)
            meant = f" Did you mean {' or '.join(like)}?" if like else ""
            raise click.UsageError(f"{error.message}{meant}", ctx) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the list of commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem[str]]:
        """Complete the name of a command without importing any; else an option."""
        from click.shell_completion import CompletionItem  # noqa: PLC0415 - only at a Tab

        names = [
            CompletionItem(name, help=what)
            for name, what in COMMANDS.items()
            if name.startswith(incomplete)
        ]
        return [*names, *click.Command.shell_complete(self, ctx, incomplete)]

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,  # noqa: ANN401 - whatever click takes
    ) -> click.Context:
        """As click, which prints the help and the version here and would call a broken pipe 1."""
        try:
            return super().make_context(info_name, args, parent, **extra)
        except BrokenPipeError as error:
            _forget_stdout()
            raise click.exceptions.Exit(EXIT_BROKEN_PIPE) from error

    def invoke(self, ctx: click.Context) -> object:
        """Run the command; its errors become one line on stderr and an exit code."""
        try:
            return self._invoke_and_flush(ctx)
        except KvmencError as error:
            click.echo(f"kvmenc: {error}", err=True)
            raise click.exceptions.Exit(error.exit_code) from error
        except KeyboardInterrupt as interrupt:
            click.echo("kvmenc: interrupted", err=True)
            raise click.exceptions.Exit(EXIT_INTERRUPTED) from interrupt
        except BrokenPipeError as error:
            _forget_stdout()
            raise click.exceptions.Exit(EXIT_BROKEN_PIPE) from error

    def _invoke_and_flush(self, ctx: click.Context) -> object:
        """A broken pipe must show here, not when the interpreter ends."""
        try:
            return super().invoke(ctx)
        finally:
            if sys.stdout is not None:  # as when started with >&-
                sys.stdout.flush()


def _ignore_more_interrupts() -> None:
    """All is tidied up; another Ctrl-C would only break what the interpreter does at its end."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _forget_stdout() -> None:
    """Nobody reads it any more: what is still buffered must not raise again at exit."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, sys.stdout.fileno())
    os.close(devnull)


_EPILOG = """\b
Exit status: 0 done, 1 the answer is no, 2 usage, 3 the host cannot do it,
4 bad input, 130 interrupted.

\b
Examples:
  kvmenc demo
  kvmenc probe --self-test
  kvmenc plan guest.capture --max-bandwidth 1GB/s --downtime-limit 300ms
"""


def _print_version(ctx: click.Context, _param: click.Parameter, wanted: bool) -> None:
    if wanted:
        click.echo(f"kvmenc {package_version()}")
        ctx.exit()


@click.group(
    cls=Root,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80},
    epilog=_EPILOG,
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Print the version.",
)
def root() -> None:
    """See which pages of an encrypted KVM guest are private and dirty, and plan its migration."""


def main() -> NoReturn:
    """Run the command; what nobody foresaw is told in full."""
    try:
        root(prog_name="kvmenc")
    except SystemExit as end:
        if end.code == EXIT_INTERRUPTED:
            _ignore_more_interrupts()
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _FULL:
            click.echo(f"kvmenc: stdout: cannot be written: {error.strerror}", err=True)
            _forget_stdout()
            sys.exit(EXIT_UNWRITABLE)
        sys.excepthook(*sys.exc_info())
    sys.exit(EXIT_BUG)
