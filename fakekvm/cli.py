"""The command ``fakekvm``. What its subcommands need is imported when one is called."""

from __future__ import annotations

import sys
import textwrap
from typing import TYPE_CHECKING

import click

from fakekvm.completions import command_argument, complete_scenario
from fakekvm.host import host_named, host_names
from fakekvm.record import command as record_command

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fakekvm.machine import Machine
    from fakekvm.supervisor import Over

__all__ = ["main"]

#: The ABI that the encryption bitmap was reviewed with on qemu-devel.
_LAID_OVER = "sev-v2-2019"
_CANNOT, _BAD_INPUT, _INTERRUPTED = 3, 4, 130


def _port(_ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    try:
        port = None if value is None else int(value, 0)
    except ValueError:
        port = -1
    if port is not None and not 0 <= port < 1 << 16:
        msg = f"{value!r} is no I/O port; expected 0 to 0xffff, such as 0x99"
        raise click.BadParameter(msg, param=param)
    return port


def _lines(words: Iterable[str]) -> str:
    """In lines of the help, none of them broken inside of a name, as click would."""
    filled = textwrap.wrap(" ".join(words), 76, break_on_hyphens=False)
    return "\n".join(f"  {line}" for line in filled)


_EXAMPLES = f"""\b
Hosts:
{_lines(host_names())}

\b
Examples:
  fakekvm run -- make test
  fakekvm run --host sev-es -- kvmenc probe
  fakekvm run --host no-kvm -- kvmenc demo
  fakekvm run --scenario kexec -- ./vmm
"""


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80})
@click.version_option(package_name="kvmenc", prog_name="fakekvm", message="%(prog)s %(version)s")
def main() -> None:
    """A KVM in userspace, for programs that are tested where there is none."""


@main.command(
    "run",
    context_settings={"allow_interspersed_args": False},
    short_help="A program, its /dev/kvm answered by the fake.",
    epilog=_EXAMPLES,
)
@click.option(
    "--host",
    type=click.Choice(host_names()),
    metavar="NAME",
    help="The machine that is played, by a name from below; the scenario's, else mainline, if it is"
    " not given.",
)
@click.option(
    "--scenario",
    metavar="NAME|FILE",
    shell_complete=complete_scenario,
    help="What the guests do, and on which machine: a file, or the name of one that comes with"
    " fakekvm. Without it each KVM_RUN writes some pages, then halts.",
)
@click.option(
    "--over",
    is_flag=True,
    help="Lay the fake over this machine's /dev/kvm: it answers the encryption bitmap's ioctls, SEV"
    f" commands and /dev/sev of the host ({_LAID_OVER} if not given), and no other.",
)
@click.option(
    "--flip-port",
    callback=_port,
    metavar="PORT",
    help="With --over: look at each KVM_RUN for a guest's announcement of private or shared pages:"
    " KVM_HC_MAP_GPA_RANGE, or a write to PORT with its arguments in rbx, rcx and rdx.",
)
@command_argument
def run_command(
    host: str | None,
    scenario: str | None,
    over: bool,
    flip_port: int | None,
    command: tuple[str, ...],
) -> None:
    """Run COMMAND with a /dev/kvm (and /dev/sev, if the host has it) that the fake answers.

    Any program will do, and what it starts too. KVM_RUN runs a scripted guest, never the program's
    code, but with --over, where it is the machine's. Exits with the program's status; 128 + N if
    signal N ended it; 3 if this machine cannot do it; 4 if the scenario is wrong. Ioctls that the
    fake does not know are listed at the end.
    """
    if over and scenario is not None:
        raise click.UsageError("--scenario has guests that cannot run over a real KVM (--over).")
    if flip_port is not None and not over:
        raise click.UsageError("--flip-port needs --over: guests of the fake flip by their script.")
    try:
        sys.exit(_run(command, host, scenario, over=over, flip_port=flip_port))
    except KeyboardInterrupt:  # before the program was there
        _say("interrupted")
        sys.exit(_INTERRUPTED)


def _run(
    command: tuple[str, ...],
    host: str | None,
    scenario: str | None,
    *,
    over: bool,
    flip_port: int | None,
) -> int:
    from fakekvm.faults import BadFault  # noqa: PLC0415 - numpy is slow to import
    from fakekvm.scenario import ScenarioError  # noqa: PLC0415
    from fakekvm.supervisor import Unavailable, run  # noqa: PLC0415

    try:
        if over:
            laid = _over(host or _LAID_OVER, flip_port)
            return run(command, laid.machine, _say, laid)
        return run(command, _machine(host, scenario), _say)
    except Unavailable as error:
        _say(str(error))
        return _CANNOT
    except (ScenarioError, BadFault) as error:
        _say(str(error))
        return _BAD_INPUT


def _over(name: str, flip_port: int | None) -> Over:
    from fakekvm.supervisor import Over, is_something  # noqa: PLC0415

    host = host_named(name)
    if not is_something(host):
        raise click.UsageError(
            f"The host {name} has neither an encryption bitmap nor SEV: there is nothing of it to"
            f" lay over a real KVM. Try {_LAID_OVER}."
        )
    if flip_port is not None and host.enc_revision is None:
        raise click.UsageError(f"--flip-port: the host {name} has no bitmap that would tell flips.")
    return Over(host, flip_port, _say)


def _machine(host: str | None, scenario: str | None) -> Machine:
    from fakekvm.machine import Machine  # noqa: PLC0415
    from fakekvm.scenario import load  # noqa: PLC0415
    from fakekvm.scripts import RandomWrites  # noqa: PLC0415

    if scenario is None:
        return Machine(host_named(host or "mainline"), RandomWrites())
    loaded = load(scenario)
    chosen = host_named(host) if host else loaded.host
    return Machine(chosen, loaded, loaded.faults, loaded.seed)


def _say(text: str) -> None:
    click.echo(f"fakekvm: {text}", err=True)


main.add_command(record_command)

if __name__ == "__main__":
    main()
