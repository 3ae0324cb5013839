"""One HTML file of all that a capture says; nothing in it asks the network for anything."""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files
from typing import TYPE_CHECKING, Literal, Self

import msgspec

from kvmenc import package_version
from kvmenc.plan.result import Verdict
from kvmenc.report.page.curve import curve_section
from kvmenc.report.page.elements import document, tag
from kvmenc.report.page.facts import advice_section, facts_section, verdict_section
from kvmenc.report.page.grid import grid_section, grid_style
from kvmenc.report.page.map import memory_section
from kvmenc.report.page.memory import data_scripts, detail_scripts
from kvmenc.report.page.rounds import rounds_section
from kvmenc.report.terminal import guest_words

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

    from kvmenc.plan.grid import Grid
    from kvmenc.plan.result import Plan
    from kvmenc.report.page.memory import Memory

__all__ = ["Written", "page"]


class Written(msgspec.Struct, frozen=True, kw_only=True):
    """What was written: what ``kvmenc report --json`` prints.

    Attributes:
        schema: ``kvmenc.report/1``.
        path: of the page.
        size_bytes: of the page.
        source: what was captured, in words.
        verdict: of the plan.
        cell_bytes: memory of a cell of the map; below it there is detail where there was room.
        stretches: parts of memory whose single pages are known.
        left_out_stretches: how many of these are without detail in the page, for its size.
        left_out_pages: pages in them.
    """

    schema: Literal["kvmenc.report/1"] = "kvmenc.report/1"
    path: str
    size_bytes: int
    source: str
    verdict: Verdict
    cell_bytes: int
    stretches: int
    left_out_stretches: int
    left_out_pages: int

    @classmethod
    def of(cls, path: str, size_bytes: int, memory: Memory, plan: Plan) -> Self:
        """Of a page that was written."""
        return cls(
            path=path,
            size_bytes=size_bytes,
            source=memory.capture.source,
            verdict=plan.verdict,
            cell_bytes=memory.drawn.cell_pages * memory.drawn.page_size,
            stretches=memory.detail.stretches,
            left_out_stretches=memory.detail.left_out,
            left_out_pages=memory.detail.left_out_pages,
        )


def page(memory: Memory, plan: Plan, grid: Grid) -> bytes:
    """The file."""
    sections = [
        verdict_section(plan),
        advice_section(plan),
        rounds_section(plan),
        grid_section(grid, plan.inputs),
        curve_section(memory.capture),
        memory_section(memory),
        facts_section(memory.capture, plan),
    ]
    shown = [it for it in sections if it is not None]
    script, style = _data("map.js"), _data("page.css") + grid_style()
    body = tag(
        "body",
        _header(plan, shown),
        tag("main", *shown),
        tag("footer", tag("p", f"Written by kvmenc {package_version()}.")),
        *data_scripts(memory),
        tag("script", script),
        *detail_scripts(memory),
    )
    return document(tag("html", _head(plan, script, style), body, lang="en"))


def _data(name: str) -> str:
    return files("kvmenc.report.page").joinpath(name).read_text("ascii")


def _head(plan: Plan, script: str, style: str) -> Element:
    """Only this style and this script may be used, and nothing may be fetched or sent."""
    policy = (
        f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; "
        "base-uri 'none'; form-action 'none'"
    )
    return tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", f"Migrating {plan.guest.source}: {plan.verdict.replace('-', ' ')}"),
        tag("style", style),
    )


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _header(plan: Plan, sections: list[Element]) -> Element:
    links = [tag("a", it[0].text, href=f"#{it.get('id')}") for it in sections]
    return tag(
        "header",
        tag("h1", guest_words(plan.guest)),
        tag("nav", *links, aria_label="On this page"),
    )
