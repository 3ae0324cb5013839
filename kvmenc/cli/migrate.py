"""``kvmenc migrate``: the real migration, beside what was predicted of it."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

import click

from kvmenc.cli.common import (
    BANDWIDTH,
    INPUT,
    TIME,
    Percent,
    Seconds,
    console,
    emit_json,
    json_option,
    option,
    private_rate_option,
    progress,
)
from kvmenc.cli.monitor import monitor_options, open_monitor
from kvmenc.errors import CheckFailed

if TYPE_CHECKING:
    from pathlib import Path

    from kvmenc.capture import Capture
    from kvmenc.migrate import Band, MigrateReport, Migration, QemuParameters
    from kvmenc.plan import Plan
    from kvmenc.qemu.monitor import Monitor

__all__ = ["command"]

_EXAMPLES = """\b
Examples:
  kvmenc migrate --qmp /run/guest.qmp --uri tcp:host2:4444 --link 10Gbit
  kvmenc migrate --qmp /run/guest.qmp --uri tcp:host2:4444 guest.capture \\
      --apply-plan --max-bandwidth 1GB/s --downtime-limit 500ms
  kvmenc migrate --domain web1 --uri tcp:host2:4444 --cancel-over 50

\b
QEMU on the other host must be waiting already (-incoming). libvirt does not
expect a migration of its domain that it did not begin.
"""


@click.command(epilog=_EXAMPLES)
@monitor_options
@option("--uri", required=True, help="Where to, as QEMU takes it: tcp:HOST:PORT, unix:PATH.")
@click.argument("file", required=False, type=INPUT)
@option(
    "--seconds",
    type=Seconds(1, 3600),
    default=5.0,
    show_default=True,
    help="How long to watch the guest first, without FILE.",
)
@option("--apply-plan", is_flag=True, help="Set these two in QEMU for the migration:")
@option("--max-bandwidth", type=BANDWIDTH, help="its cap while the guest runs: 1GB/s;")
@option("--downtime-limit", type=TIME, help="the pause that it may plan for: 300ms.")
@option("--link", type=BANDWIDTH, show_default="max-bandwidth", help="The network's speed.")
@private_rate_option
@option(
    "--cancel-over",
    type=Percent(1),
    metavar="PERCENT",
    help="Cancel when it takes so much longer than predicted.",
)
@option("--anyway", is_flag=True, help="Migrate though the plan says it does not converge.")
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    /,
    *,
    qmp: Path | None,
    domain: str | None,
    uri: str,
    file: Path | None,
    seconds: float,
    apply_plan: bool,
    max_bandwidth: float | None,
    downtime_limit: float | None,
    link: float | None,
    private_rate_pps: float | None,
    cancel_over: float | None,
    anyway: bool,
    as_json: bool,
) -> None:
    """Migrate the guest of a running QEMU, and compare it with what was predicted.

    The prediction is made of FILE, a capture of this guest, or of watching it first; with the
    parameters that QEMU has, or with --apply-plan those given here, which it gets for this
    migration only.
    Ctrl-C cancels it: the guest runs on. Exit status 1 if it does not complete.
    """
    if not apply_plan and (max_bandwidth or downtime_limit):
        raise click.UsageError("--max-bandwidth and --downtime-limit go with --apply-plan")
    from kvmenc.migrate import Chosen, Migration, QemuParameters  # noqa: PLC0415 - numpy is slow to import
    from kvmenc.plan import make_plan, profile_for  # noqa: PLC0415
    from kvmenc.qemu.facts import read_facts  # noqa: PLC0415
    from kvmenc.report.migrate import print_migration  # noqa: PLC0415 - rich is slow to import

    chosen = Chosen(
        max_bandwidth_bytes_per_s=max_bandwidth,
        downtime_limit_ms=downtime_limit,
        link_bytes_per_s=link,
        private_rate_pps=private_rate_pps,
    )
    with open_monitor(qmp, domain) as monitor:
        parameters = chosen.over(QemuParameters.read(monitor))
        facts = read_facts(monitor)
        profile = profile_for(facts.release)
        plan = make_plan(_capture(monitor, file, seconds), parameters, profile)
        if plan.verdict != "converges" and not anyway:
            raise CheckFailed(f"not begun (--anyway to do it): {plan.reason}")
        applied = QemuParameters.of(parameters) if apply_plan else None
        report = _migrate(monitor, Migration(monitor, facts, uri), plan, applied, cancel_over)
    if as_json:
        emit_json(report)
    else:
        print_migration(report, console())
    ctx.exit(0 if report.outcome == "completed" else 1)


def _capture(monitor: Monitor, file: Path | None, seconds: float) -> Capture:
    if file:
        from kvmenc.capture import load_capture  # noqa: PLC0415
        from kvmenc.migrate import check_same_guest  # noqa: PLC0415 - as above

        capture = load_capture(file)
        check_same_guest(monitor, capture, str(file))
        return capture
    from kvmenc.watch.run import watch  # noqa: PLC0415
    from kvmenc.watch.wishes import Wishes  # noqa: PLC0415

    with progress("watching the guest", seconds) as update:
        watched = watch(monitor, Wishes(seconds=seconds), lambda at_s, _pages: update(at_s))
    if watched.trouble:
        raise watched.trouble
    return watched.capture


def _migrate(
    monitor: Monitor,
    migration: Migration,
    plan: Plan,
    applied: QemuParameters | None,
    cancel_over: float | None,
) -> MigrateReport:
    from kvmenc.migrate import MigrateReport, Progress  # noqa: PLC0415

    band = _band(plan, cancel_over)
    predicted_ms = plan.total_time_ms or 0.0
    end = Progress()
    with (
        applied.in_force(monitor) if applied else nullcontext(),
        progress(_prediction(plan), max(predicted_ms, 1.0)) as update,
        migration,
    ):
        migration.start()
        for end in migration.follow(band):
            update(end.total_time)
    return MigrateReport.of(migration.uri, plan, end, band.why if band else "")


def _band(plan: Plan, cancel_over: float | None) -> Band | None:
    from kvmenc.migrate import Band  # noqa: PLC0415

    if cancel_over is None:
        return None
    if plan.total_time_ms is None:
        raise CheckFailed("no time is predicted that it could exceed: --cancel-over goes not here")
    longest_ms = plan.total_time_ms * (1 + cancel_over / 100)
    return Band(longest_ms, f"it took more than {cancel_over:g} % longer than predicted")


def _prediction(plan: Plan) -> str:
    from kvmenc.units import format_time  # noqa: PLC0415

    if plan.total_time_ms is None:
        return "migrating; predicted not to converge"
    return f"migrating; predicted {format_time(plan.total_time_ms)}"
