"""``kvmenc dry-run``: a migration rehearsed."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import click

from fakekvm.completions import complete_scenario
from kvmenc.cli.common import (
    OUTPUT,
    PAGE_RATE,
    Whole,
    check_outputs,
    console,
    downtime_limit_option,
    emit_json,
    json_option,
    link_option,
    max_bandwidth_option,
    option,
    progress,
    time_limit_option,
    write_output,
)
from kvmenc.cli.planned import SHARE, SIZE
from kvmenc.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from contextlib import AbstractContextManager
    from pathlib import Path

    from fakekvm import Host
    from fakekvm.scripts import Scripts
    from kvmenc.ordering.protocols import Protocol
    from kvmenc.rehearsal import Rehearsed, Source, Wanted

__all__ = ["command"]

_LIMITS = (
    "max_bandwidth_bytes_per_s",
    "link_bytes_per_s",
    "private_rate_pps",
    "downtime_limit_ms",
    "time_limit_ms",
)
_FAKES_OWN = ("scenario", "vcpus", "threads", "memory_bytes", "private_share", "seed")

_MEMORY_BYTES = 64.0 * 2**20
_PRIVATE_SHARE = 0.25
_PRIVATE_RATE_PPS = 20_000.0

_EXAMPLES = """\b
Examples:
  kvmenc dry-run
  kvmenc dry-run --memory 1GiB --private 100% --private-rate 50000pps
  kvmenc dry-run --scenario kexec --vcpus 2 --threads
  kvmenc dry-run --protocol "dirty, private; CLEAR by GET"
  kvmenc dry-run --fault link-cut@2
  kvmenc dry-run --backend local --json | jq .verdict
  kvmenc dry-run --run rehearsal.json && kvmenc backtest rehearsal.json
"""


def _complete_fault(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    from kvmenc.rehearsal.faults import FaultKind  # noqa: PLC0415 - only at a Tab

    return [kind for kind in FaultKind if kind.startswith(incomplete)]


@click.command(epilog=_EXAMPLES)
@option(
    "--backend",
    type=click.Choice(["fake", "local"]),
    default="fake",
    show_default=True,
    help="The guest on fakekvm, or a real one on /dev/kvm.",
)
@option(
    "--scenario",
    metavar="NAME|FILE",
    shell_complete=complete_scenario,
    help="What its vCPUs do; see docs/fakekvm.md.",
)
@option("--vcpus", type=Whole(1, 64), help="How many a scenario's guest has.", show_default="1")
@option("--threads", is_flag=True, help="Each vCPU in a thread, not one after the other.")
@option("--memory", "memory_bytes", type=SIZE, show_default="64MiB", help="Of a fake guest: 4GiB.")
@option(
    "--private",
    "private_share",
    type=SHARE,
    show_default="25%",
    help="So many of the built-in guest's pages are private.",
)
@option("--seed", type=Whole(0, (1 << 63) - 1), help="Of what the guest does.")
@option(
    "--protocol",
    metavar="NAME",
    show_default="kvmenc's own",
    help="How to sync, by a name that `kvmenc check-order` prints.",
)
@max_bandwidth_option
@link_option
@option(
    "--private-rate",
    "private_rate_pps",
    type=PAGE_RATE,
    default=_PRIVATE_RATE_PPS,
    show_default="20000pps; AMD's is 400pps",
    help="Private pages per second through the firmware.",
)
@downtime_limit_option
@time_limit_option
@option(
    "--fault",
    metavar="NAME[@ROUND]",
    shell_complete=_complete_fault,
    help="What goes wrong, in round 2 or ROUND (1, ..., stopped): link-cut, cancel, send-error,"
    " destination-refuses.",
)
@option(
    "--stream",
    type=OUTPUT,
    metavar="FILE",
    help="Keep what was sent, for `kvmenc stream FILE`.",
)
@option(
    "--run",
    "run_path",
    type=OUTPUT,
    metavar="FILE",
    help="Keep plan's capture and outcome, for `kvmenc backtest FILE`.",
)
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    /,
    *,
    stream: Path | None,
    run_path: Path | None,
    as_json: bool,
    **given: Any,  # noqa: ANN401 - whatever the options above are of
) -> None:
    """Rehearse a migration: pages really move between two encrypted VMs, and all are compared.

    The guest runs, writes and flips while rounds go. Private pages pass the firmware of both hosts,
    fake ones that really encrypt; a line that keeps order carries them. Rounds follow QEMU's rules,
    in computed time. A plan is made first, of a capture of the same guest, and shown beside.

    Exit status 0 if the guest is whole at the end that has it, 1 if a page is wrong, it does not
    converge, or the fault did not strike.
    """
    check_outputs(stream, run_path)
    found = _rehearsed(given, _wanted(given), stream)
    if run_path:
        from kvmenc.rehearsal import run_file  # noqa: PLC0415

        write_output(run_path, lambda file: file.write(run_file(found, run_path.stem)))
    if as_json:
        emit_json(found.result)
    else:
        from kvmenc.report.rehearsal import print_rehearsal  # noqa: PLC0415 - rich is slow

        print_rehearsal(found.result, console(stream, run_path))
    fault = found.result.fault
    ctx.exit(0 if found.result.verdict == "whole" and (not fault or fault.struck) else 1)


def _wanted(given: dict[str, Any]) -> Wanted:
    """What the options say of the migration; none of them is left in ``given``."""
    from kvmenc.plan import Parameters  # noqa: PLC0415 - numpy is slow to import
    from kvmenc.rehearsal import Wanted, parse_fault  # noqa: PLC0415

    limits = {name: given.pop(name) for name in _LIMITS}
    known = {name: value for name, value in limits.items() if value is not None}
    fault, protocol = given.pop("fault"), given.pop("protocol")
    return Wanted(
        parameters=Parameters(**known),
        fault=parse_fault(fault) if fault else None,
        protocol=_protocol(protocol),
    )


def _protocol(name: str | None) -> Protocol:
    from kvmenc.ordering.protocols import ASKED_ONCE, OWN, PROTOCOLS  # noqa: PLC0415

    if name is None:
        return OWN[1]
    by_name = {it.name: it for it in (*PROTOCOLS, ASKED_ONCE)}
    if name not in by_name:
        known = "\n  ".join(by_name)
        raise click.UsageError(f"no protocol is called {name!r}; there are:\n  {known}")
    return by_name[name]


def _rehearsed(given: dict[str, Any], wanted: Wanted, stream: Path | None) -> Rehearsed:
    if stream is None:
        return _rehearse(given, wanted)
    found: list[Rehearsed] = []
    write_output(
        stream,
        lambda file: found.append(_rehearse(given, replace(wanted, stream=cast("BinaryIO", file)))),
    )
    return found[0]


def _rehearse(given: dict[str, Any], wanted: Wanted) -> Rehearsed:
    from kvmenc.rehearsal import far_target, rehearse  # noqa: PLC0415

    with _source(given, wanted) as source:
        npages = sum(block.npages for block in source.side.layout.blocks)
        with progress("moving pages", npages) as update:
            moved_pages = 0

            def moved(pages: int) -> None:
                nonlocal moved_pages
                moved_pages += pages
                update(moved_pages)

            return rehearse(source, wanted, far_target, moved)


def _source(given: dict[str, Any], wanted: Wanted) -> AbstractContextManager[Source]:
    """The guest that the options say."""
    from kvmenc.rehearsal import fake_source, guest_layout, local_source  # noqa: PLC0415

    if given["backend"] == "local":
        _refuse(given, _FAKES_OWN, "it goes with --backend fake: the real guest is what it is")
        if not wanted.manual_protect:
            raise click.UsageError("--backend local has manual protect on: not CLEAR by GET")
        return local_source()
    scripts, host = _scripts(given)
    return fake_source(
        scripts,
        guest_layout(given["memory_bytes"] or _MEMORY_BYTES),
        host,
        given["vcpus"] or 1,
        manual_protect=wanted.manual_protect,
        threads=given["threads"],
    )


def _scripts(given: dict[str, Any]) -> tuple[Scripts, Host | None]:
    """What its vCPUs do, and on what host."""
    from kvmenc.rehearsal import BuiltIn  # noqa: PLC0415

    seed = given["seed"]
    if given["scenario"] is None:
        _refuse(given, ("vcpus",), "it goes with --scenario: the built-in guest has one")
        share = given["private_share"]
        return BuiltIn(_PRIVATE_SHARE if share is None else share, seed or 0), None
    _refuse(given, ("private_share",), "a scenario's guest announces its pages itself")
    from fakekvm import scenario  # noqa: PLC0415

    try:
        found = scenario.load(given["scenario"])
    except scenario.ScenarioError as error:
        raise InputError(str(error)) from error
    return (found if seed is None else replace(found, seed=seed)), found.host


def _refuse(given: dict[str, Any], names: Iterable[str], why: str) -> None:
    for name in names:
        if given[name] is not None and given[name] is not False:  # 0 is given
            option = name.removesuffix("_bytes").removesuffix("_share")
            raise click.UsageError(f"--{option}: {why}")
