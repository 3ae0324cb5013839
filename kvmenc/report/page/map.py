"""The memory map with its controls, and the tables behind it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvmenc import units
from kvmenc.report.page.elements import (
    bullets,
    disclosed,
    elided_rows,
    legend,
    section,
    table,
    tag,
)
from kvmenc.report.show import MEMORY, WRITTEN, page_count, zero_bound_lines

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from xml.etree.ElementTree import Element

    from kvmenc.capture import Capture
    from kvmenc.report.captured import BlockRow
    from kvmenc.report.page.memory import Memory

__all__ = ["memory_section"]

#: Beyond, the middle of the RAMBlocks is left out of a table.
_BLOCKS = 14


def memory_section(memory: Memory) -> Element:
    """The map with its controls and its legend, and the tables."""
    capture = memory.capture
    return section(
        "memory",
        "Memory map",
        tag(
            "p",
            "Row by row, from the start of a RAMBlock to its end. The upper band of a cell is what "
            "its pages are, the lower one which share of them was written while the guest was "
            "watched.",
        ),
        legend({"private": "private", "shared": "shared", "zero": "shared and zero"}),
        tag("noscript", tag("p", "The map needs JavaScript; the tables below do not.")),
        tag("div", _controls(capture), _canvas(), _readout(), id="map-box", hidden="hidden"),
        tag("p", "This browser cannot unpack the map.", id="map-failed", hidden="hidden"),
        tag("p", _left_out_line(memory)),
        _counts("Pages by RAMBlock", memory.rows, MEMORY),
        bullets(zero_bound_lines(capture.blocks)),
        _counts("Pages written at least once while watched", memory.rows, WRITTEN),
        disclosed("The map as a table", _parts_table(memory)),
    )


def _left_out_line(memory: Memory) -> str:
    """How far the map goes down."""
    detail, page_size = memory.detail, memory.capture.page_size
    if not detail.stretches:
        return "The capture holds no bitmaps: the map is drawn from its counts."
    if not detail.left_out:
        return "The map goes down to a single page everywhere."
    return (
        f"Left out for size: single pages in {detail.left_out:,} of {detail.stretches:,} stretches "
        f"({units.format_size(detail.left_out_pages * page_size)}). There the map goes down to "
        f"{units.format_size(memory.drawn.cell_pages * page_size)}, and smaller cells, paler, show "
        f"the mean of that; --detail makes more room."
    )


def _controls(capture: Capture) -> Element:
    largest = max(range(len(capture.blocks)), key=lambda i: capture.blocks[i].npages)
    choices = [
        tag(
            "option",
            f"{block.name} ({units.format_size(block.npages * capture.page_size)})",
            value=str(i),
            **({"selected": "selected"} if i == largest else {}),
        )
        for i, block in enumerate(capture.blocks)
    ]
    buttons = {
        "map-in": "Zoom in",
        "map-out": "Zoom out",
        "map-whole": "Whole RAMBlock",
        "map-back": "Earlier",
        "map-on": "Later",
    }
    return tag(
        "div",
        tag("label", "RAMBlock ", tag("select", *choices, id="map-block")),
        *(tag("button", words, type="button", id=name) for name, words in buttons.items()),
        tag("label", "Page ", tag("input", id="map-page", inputmode="numeric", size="12")),
        class_="controls",
        role="group",
        aria_label="What the map shows",
    )


def _canvas() -> Element:
    return tag(
        "canvas",
        id="map",
        tabindex="0",
        role="application",
        aria_label="Memory map",
        aria_describedby="map-keys map-readout",
    )


def _readout() -> Element:
    keys = (
        "Arrows move, + and - (or a double click, with Shift outwards) zoom, Page Up and Page Down "
        "turn over, Home and End go to the ends, 0 shows the whole RAMBlock."
    )
    return tag(
        "div",
        tag("p", id="map-readout", role="status"),
        tag("p", keys, id="map-keys", class_="quiet"),
    )


def _counts(caption: str, rows: Sequence[BlockRow], fields: Mapping[str, str]) -> Element:
    """A RAMBlock to a row, and their sum."""

    def counts(of: Sequence[BlockRow]) -> list[str]:
        return [page_count([getattr(it, name) for it in of]) for name in fields.values()]

    cells = elided_rows(rows, 1 + len(fields), lambda _, it: [[it.name, *counts([it])]], _BLOCKS)
    total = [["all", *counts(rows)]] if len(rows) > 1 else []
    return table(caption, ["RAMBlock", *fields], [*cells, *total])


def _parts_table(memory: Memory) -> Element:
    headings = (
        "RAMBlock", "from", "size", "private", "shared", "zero", "written private",
        "written shared",
    )  # fmt: skip
    rows = elided_rows(
        memory.capture.blocks,
        len(headings),
        lambda number, block: _part_rows(memory, number - 1, block.name),
        _BLOCKS,
    )
    return table("The RAMBlocks in parts", headings, rows)


def _part_rows(memory: Memory, index: int, name: str) -> Iterator[list[str]]:
    page_size, drawn, at = memory.capture.page_size, memory.drawn.blocks[index], 0
    for it in memory.parts(index):
        yield [
            name,
            units.format_size(at * page_size) if at else "0",
            units.format_size(it.npages * page_size),
            f"{it.private_pages:,}",
            f"{it.npages - it.private_pages:,}",
            f"{it.zero_pages:,}" if drawn.zero_known else "-",
            f"{it.dirty_private_pages:,}" if drawn.dirty_known else "-",
            f"{it.dirty_shared_pages:,}" if drawn.dirty_known else "-",
        ]
        at += it.npages
