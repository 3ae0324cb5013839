"""What is in a capture, in a terminal of 80 columns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from kvmenc import units
from kvmenc.report.captured import ShowReport
from kvmenc.report.memorymap import print_maps
from kvmenc.report.plot import SEVERAL, Series, plot
from kvmenc.report.terminal import bullet, columns, elided

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from rich.console import Console
    from rich.table import Table

    from kvmenc.capture import BlockFacts, Capture, Costs, DeviceCurve, EndedBy, How, Window
    from kvmenc.report.captured import BlockRow

__all__ = [
    "MEMORY",
    "WRITTEN",
    "ShowReport",
    "cost_lines",
    "device_line",
    "origin_lines",
    "page_count",
    "print_show",
    "window_row",
    "zero_bound_lines",
]

_HOW: dict[How, str] = {
    "sync": "dirty pages taken from KVM's log",
    "peek": "KVM's dirty log read without taking from it",
    "calc-dirty-rate": "dirty pages as QEMU's calc-dirty-rate counts them",
}
#: Why a window has no more points.
_ENDED_BY: dict[EndedBy, str] = {
    "time": "its time was over",
    "another-reader": "another reader took dirty bits",
    "log-stopped": "dirty logging was switched off",
    "layout-changed": "the guest's memory layout changed",
    "vm-gone": "the VM ended",
    "interrupted": "the capture was told to stop",
}

#: Headings, and the fields of a ``BlockRow`` below them.
MEMORY = {
    "pages": "npages",
    "private": "private_pages",
    "shared": "shared_pages",
    "zero": "zero_pages",
}
#: Likewise.
WRITTEN = {
    "private": "dirtied_private_pages",
    "shared": "dirtied_shared_pages",
    "by devices": "device_pages",
    "not logged": "unlogged_pages",
}


def print_show(report: ShowReport, console: Console) -> None:
    """Where it comes from, counts, windows, curve, map, costs, notes."""
    capture = report.capture
    console.print(Text(f"Capture of {capture.source}", "bold"))
    for line in origin_lines(capture):
        console.print(Text(line))
    _heading(f"Memory (pages of {units.format_size(capture.page_size)})", console)
    console.print(_counts(report.blocks, MEMORY))
    for line in zero_bound_lines(capture.blocks):
        console.print(bullet(line))
    _heading("Pages written at least once while watched", console)
    console.print(_counts(report.blocks, WRITTEN))
    if capture.samples:
        flips = sum(sample.flipped_pages for sample in capture.samples)
        console.print(bullet(f"pages changed between private and shared: {flips:,} times"))
    if capture.windows:
        _heading("Windows, each from a t = 0 at which no page was dirty", console)
        console.print(_windows(capture.windows))
    _print_curve(capture, console)
    if report.maps:
        _heading("Memory map", console)
        print_maps(report.maps, capture.page_size, console)
    if notes := [*cost_lines(capture.costs), *capture.notes]:
        _heading("Notes", console)
    for line in notes:
        console.print(bullet(line))


def _heading(text: str, console: Console) -> None:
    console.print(Text(f"\n{text}", "bold"))


def origin_lines(capture: Capture) -> Iterator[str]:
    """When and how it was made, on what host, and where private/shared is from."""
    if it := capture.provenance:
        made = it.captured_at.replace("T", " ").replace("Z", " UTC")
        yield f"Made {made} by kvmenc {it.kvmenc_version}; {_HOW[it.how]}."
        host = {
            "kernel": it.kernel, "QEMU": it.qemu, "machine": it.machine, "kind of VM": it.vm_kind,
        }  # fmt: skip
        if known := [f"{name} {value}" for name, value in host.items() if value]:
            yield f"Host: {', '.join(known)}."
    reason = f"; {capture.private_reason}" if capture.private_reason else ""
    yield f"Private/shared: {capture.private_source}{reason}."


def _counts(blocks: Sequence[BlockRow], fields: Mapping[str, str]) -> Table:
    """A RAMBlock to a row, and their sum; the middle of many is left out.

    Args:
        blocks: the RAMBlocks.
        fields: fields of a row, by heading.
    """
    table = columns("RAMBlock", *fields)
    for number, it in elided(blocks):
        if it is None:
            table.add_row(f"({number} more)")
        else:
            table.add_row(
                Text(it.name), *(page_count([getattr(it, name)]) for name in fields.values())
            )
    if len(blocks) > 1:
        sums = ([getattr(it, name) for it in blocks] for name in fields.values())
        table.add_row("all", *map(page_count, sums))
    return table


def page_count(counts: Sequence[int | None]) -> str:
    """Their sum, unless one of them is not known."""
    known = [count for count in counts if count is not None]
    return f"{sum(known):,}" if len(known) == len(counts) else "-"


def zero_bound_lines(blocks: Sequence[BlockFacts]) -> Iterator[str]:
    """Where zero pages were estimated, how well."""
    for it in blocks:
        if it.zero_low_pages is not None and it.zero_high_pages is not None:
            yield (
                f"{it.name}: zero pages are an estimate; with 95 % confidence they are "
                f"{it.zero_low_pages:,} to {it.zero_high_pages:,}"
            )


def _windows(windows: Sequence[Window]) -> Table:
    table = columns("window", "began at", "lasted", "t = 0 within", "looks", "ended by")
    for number, it in elided(windows):
        if it is None:
            table.add_row("...", f"({number} more)")
            continue
        table.add_row(*window_row(number, it))
    return table


def window_row(number: int, window: Window) -> tuple[str, ...]:
    """Number, beginning, length, error of t = 0, looks, and what ended it."""
    return (
        str(number),
        units.format_time(window.start_ms) if window.start_ms else "0 s",
        units.format_time(window.points[-1].ms),
        units.format_time(window.start_error_ms),
        str(len(window.points)),
        _ENDED_BY[window.ended_by],
    )


def _print_curve(capture: Capture, console: Console) -> None:
    _heading("Curve: pages written at least once within a time", console)
    ms = [point.ms for point in capture.curve]
    curves = {
        "p private": Series("p", ms, [point.private_pages for point in capture.curve]),
        "s shared": Series("s", ms, [point.shared_pages for point in capture.curve]),
    }
    if it := capture.device:
        found = [sum(point.pages) for point in it.points]
        curves["d by devices"] = Series("d", [point.ms for point in it.points], found)
    seen = {name: curve for name, curve in curves.items() if max(curve.pages)}
    if not seen:
        console.print(Text("No page was written."))
        return
    lines = plot(list(seen.values()), min(console.width, 80))
    several = ["* several"] if any(SEVERAL in line for line in lines) else []
    for line in [*lines, ", ".join([*seen, *several])]:
        console.print(Text(line))
    if it:
        console.print(Text(device_line(it)))


def device_line(it: DeviceCurve) -> str:
    """What only devices wrote, and how sure that is."""
    last = it.points[-1]
    return (
        f"Devices wrote about {sum(last.pages):,} pages that no vCPU wrote, in "
        f"{units.format_time(last.ms)}: {last.low_pages:,} to {last.high_pages:,} with "
        f"{it.confidence * 100:g} % confidence, by comparing {it.sampled_pages:,} of "
        f"{it.population_pages:,} pages."
    )


def cost_lines(costs: Costs | None) -> Iterator[str]:
    """What looking cost the guest."""
    if not costs:
        return
    if costs.log_start_ms is not None:
        start = (
            f"switching the dirty log on took QEMU up to {units.format_time(costs.log_start_ms)}"
        )
        per_gib = costs.log_start_ms_per_gib
        yield start if per_gib is None else f"{start}, {units.format_time(per_gib)} per GiB"
    if costs.stop_count:
        times = {
            "median": costs.stop_median_us, "99 % below": costs.stop_p99_us,
            "longest": costs.stop_max_us,
        }  # fmt: skip
        known = [f"{name} {units.format_time(us / 1e3)}" for name, us in times.items() if us]
        yield f"a thread of QEMU was stopped {costs.stop_count:,} times: {', '.join(known)}"
