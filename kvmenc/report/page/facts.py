"""What is said in words: the verdict, what would change it, and where all of it comes from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvmenc import units
from kvmenc.report.advice import advice_words, interval_words
from kvmenc.report.page.elements import bullets, disclosed, elided_rows, section, table, tag
from kvmenc.report.show import cost_lines, origin_lines, window_row
from kvmenc.report.terminal import guest_words, inputs_line, verdict_line

if TYPE_CHECKING:
    from collections.abc import Iterator
    from xml.etree.ElementTree import Element

    from kvmenc.capture import Capture, SlotFacts
    from kvmenc.plan.result import Plan

__all__ = ["advice_section", "facts_section", "verdict_section"]


def verdict_section(plan: Plan) -> Element:
    """The answer first, then why, and with what parameters."""
    proven = "" if plan.proven else ", which were not compared with real runs (UNPROVEN)"
    firmware = (
        f" Firmware: {units.format_page_rate(plan.inputs.private_rate_pps)}."
        if plan.guest.private_pages
        else ""
    )
    return section(
        "verdict",
        "What migrating it would do",
        tag("p", verdict_line(plan), class_=f"verdict {plan.verdict}"),
        tag("p", f"{plan.reason[0].upper()}{plan.reason[1:]}."),
        tag("p", interval_words(plan.interval)) if plan.interval else None,
        tag("p", f"{inputs_line(plan.inputs)}{firmware} Rules of {plan.profile}{proven}."),
    )


def advice_section(plan: Plan) -> Element | None:
    """What would make it converge, or its margins."""
    if not plan.advice:
        return None
    heading, lines = advice_words(plan.advice)
    name = (
        "How far from the edge" if plan.advice.kind == "margin" else "What would make it converge"
    )
    return section("advice", name, tag("p", heading), bullets(lines))


def facts_section(capture: Capture, plan: Plan) -> Element:
    """Host, capture, costs, assumptions."""
    guest = f"Guest: {guest_words(plan.guest)}, pages of {units.format_size(capture.page_size)}."
    return section(
        "facts",
        "Host and capture",
        bullets([guest, *origin_lines(capture)]),
        *_listed("What looking cost the guest", cost_lines(capture.costs)),
        *_listed("Notes of the capture", capture.notes),
        *_listed("What the plan rests on", plan.assumptions),
        disclosed("Windows of the capture", _windows(capture)) if capture.windows else None,
        disclosed("Memslots", _slots(capture)) if capture.slots else None,
    )


def _listed(heading: str, lines: Iterator[str] | tuple[str, ...]) -> Iterator[Element]:
    found = bullets(lines)
    if found is not None:
        yield tag("h3", heading)
        yield found


def _windows(capture: Capture) -> Element:
    headings = ("window", "began at", "lasted", "t = 0 within", "looks", "ended by")
    rows = elided_rows(capture.windows, len(headings), lambda i, it: [window_row(i, it)])
    return table("Windows, each from a t = 0 at which no page was dirty", headings, rows)


def _slots(capture: Capture) -> Element:
    headings = ("slot", "address space", "gfns", "pages", "RAMBlock", "first page", "dirty log")
    rows = elided_rows(capture.slots, len(headings), lambda _, it: [_slot(it)])
    return table("Memslots and the RAMBlocks behind them", headings, rows)


def _slot(it: SlotFacts) -> tuple[str, ...]:
    return (
        "-" if it.slot_id is None else str(it.slot_id),
        str(it.as_id),
        f"0x{it.base_gfn:x}-0x{it.base_gfn + it.npages - 1:x}",
        f"{it.npages:,}",
        it.block,
        f"{it.block_page:,}",
        {True: "on", False: "off", None: "-"}[it.log_dirty],
    )
