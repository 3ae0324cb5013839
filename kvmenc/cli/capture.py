"""``kvmenc capture``: what the guest of a running QEMU dirties, and how fast."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kvmenc.cli.common import OUTPUT, Seconds, Whole, check_outputs, json_option, option, progress
from kvmenc.cli.monitor import monitor_options, open_monitor
from kvmenc.cli.show import show
from kvmenc.errors import InputError

if TYPE_CHECKING:
    from kvmenc.watch.wishes import Watched, Wishes

__all__ = ["command"]

_EXAMPLES = """\b
Examples:
  kvmenc capture --qmp /run/guest.qmp --seconds 10 -o guest.capture
  kvmenc capture --domain web1 -o web1.capture
  kvmenc capture --qmp /run/sev.qmp --enc-log qemu.log -o sev.capture

\b
Needs the right to ptrace QEMU (root, or CAP_SYS_PTRACE); without it one
number a second is all that QEMU tells. Then: kvmenc show, kvmenc plan.
"""

_FILE = click.Path(path_type=Path)
_SOURCES = ("bitmap", "hypercalls", "content", "all-private", "all-shared")


@click.command(epilog=_EXAMPLES)
@monitor_options
@option(
    "--seconds",
    type=Seconds(1, 86400),
    default=10.0,
    show_default=True,
    help="How long to watch; over 57, in windows.",
)
@option("-o", "--output", type=OUTPUT, required=True, metavar="FILE", help="The capture.")
@option("--pid", type=Whole(1), help="QEMU's process, if QEMU names another.")
@option(
    "--private",
    type=click.Choice(_SOURCES),
    show_default="the best at hand",
    help="Where private/shared comes from.",
)
@option("--enc-log", type=_FILE, metavar="FILE", help="Log of the guest's announcements.")
@option("--enc-revision", metavar="NAME", help="Posting of KVM_GET_PAGE_ENC_BITMAP here.")
@option("--no-contents", is_flag=True, help="Do not read the guest's memory.")
@option("--during-migration", is_flag=True, help="Look although a migration is going on.")
@option("--trace", type=_FILE, metavar="FILE", help="Log of kvm_set_user_memory, for that.")
@json_option
def command(
    *,
    qmp: Path | None,
    domain: str | None,
    seconds: float,
    output: Path,
    pid: int | None,
    private: str | None,
    enc_log: Path | None,
    enc_revision: str | None,
    no_contents: bool,
    during_migration: bool,
    trace: Path | None,
    as_json: bool,
) -> None:
    """Watch the guest of a running QEMU: how many pages it dirties in how long, and which.

    Nothing is installed in the guest, and QEMU is left as it was found. Its own calc-dirty-rate
    turns dirty logging on; the log is looked at without taking a bit from it.
    """
    from kvmenc.capture import save_capture  # noqa: PLC0415 - numpy is slow to import
    from kvmenc.encstate.choose import SourceName  # noqa: PLC0415
    from kvmenc.watch.wishes import Wishes  # noqa: PLC0415

    if trace and not during_migration:
        raise click.UsageError("--trace goes with --during-migration")
    _check_source(private, {"bitmap": enc_revision, "hypercalls": enc_log})
    check_outputs(output, inputs=[enc_log, trace])
    _check_files(output, enc_log, trace)
    wishes = Wishes(
        seconds=seconds,
        pid=pid,
        private=SourceName(private) if private else None,
        revision=enc_revision,
        enc_log=enc_log,
        contents=not no_contents,
        during_migration=during_migration,
        trace=trace,
    )
    watched = _watch(qmp, domain, wishes)
    save_capture(watched.capture, output, watched.bitmaps)
    show(output, as_json=as_json)
    if watched.trouble:
        raise watched.trouble


def _check_source(private: str | None, needed: dict[str, object]) -> None:
    """Better said now than after a look at QEMU."""
    if private in needed and needed[private] is None:
        option = {"bitmap": "--enc-revision NAME", "hypercalls": "--enc-log FILE"}[private]
        raise click.UsageError(f"--private {private} goes with {option}")


def _check_files(output: Path, *logs: Path | None) -> None:
    """Likewise: the output is read again to be shown, and logs only when their turn comes."""
    if output.exists() and not output.is_file():
        raise InputError(f"{output}: it is no regular file, and what is written is read again")
    for log in filter(None, logs):
        if not os.access(log, os.R_OK):
            raise InputError(f"{log}: there is no such file, or it cannot be read")


def _watch(qmp: Path | None, domain: str | None, wishes: Wishes) -> Watched:
    from kvmenc.watch.run import watch  # noqa: PLC0415 - numpy and asyncio are slow to import

    with (
        open_monitor(qmp, domain) as monitor,
        progress("watching the guest", wishes.seconds) as update,
    ):
        return watch(monitor, wishes, lambda seconds, _pages: update(seconds))
