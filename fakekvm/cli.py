"""The command ``fakekvm``."""

from __future__ import annotations

import sys

import click

from fakekvm.host import host_named, host_names
from fakekvm.machine import Machine
from fakekvm.scenario import ScenarioError, load
from fakekvm.scripts import RandomWrites
from fakekvm.supervisor import Unavailable, run

__all__ = ["main"]

_CANNOT, _BAD_INPUT, _INTERRUPTED = 3, 4, 130


@click.group()
def main() -> None:
    """A KVM in userspace, for programs that are tested where there is none."""


@main.command("run", context_settings={"allow_interspersed_args": False})
@click.option(
    "--host",
    type=click.Choice(host_names()),
    metavar="NAME",
    help="The machine that is played; the scenario's, else mainline, if it is not given. One of "
    f"{', '.join(host_names())}.",
)
@click.option(
    "--scenario",
    metavar="FILE",
    help="What the guests do, and on which machine: a file, or the name of one that comes with"
    " fakekvm. Without it each KVM_RUN writes some pages, then halts.",
)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def run_command(host: str | None, scenario: str | None, command: tuple[str, ...]) -> None:
    """Run COMMAND with a /dev/kvm (and /dev/sev, if the host has it) that the fake answers.

    Any program will do, and what it starts too. KVM_RUN runs a scripted guest, never the program's
    code. Exits with the program's status; 128 + N if signal N ended it; 3 if this machine cannot
    do it; 4 if the scenario is wrong. Ioctls that the fake does not know are listed at the end.
    """
    try:
        sys.exit(run(command, _machine(host, scenario), _say))
    except Unavailable as error:
        _say(str(error))
        sys.exit(_CANNOT)
    except ScenarioError as error:
        _say(str(error))
        sys.exit(_BAD_INPUT)
    except KeyboardInterrupt:  # before the program was there
        sys.exit(_INTERRUPTED)


def _machine(host: str | None, scenario: str | None) -> Machine:
    if scenario is None:
        return Machine(host_named(host or "mainline"), RandomWrites())
    loaded = load(scenario)
    return Machine(host_named(host) if host else loaded.host, loaded)


def _say(text: str) -> None:
    click.echo(f"fakekvm: {text}", err=True)


if __name__ == "__main__":
    main()
