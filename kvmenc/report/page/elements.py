"""HTML as a tree: what is text is put in as text, so that nothing a capture says can be markup."""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.etree.ElementTree import Element, tostring

from kvmenc.report.terminal import elided

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from typing import TypeVar

    Item = TypeVar("Item")
    #: What may stand inside an element; None is nothing.
    Content = Element | str | None

__all__ = [
    "bullets",
    "disclosed",
    "document",
    "elided_rows",
    "legend",
    "section",
    "table",
    "table_of",
    "tag",
]


def tag(name: str, /, *contents: Content, **attributes: str | float) -> Element:
    """An element.

    Args:
        name: of the element.
        contents: in order; text is text, whatever it holds.
        attributes: ``class_`` is class, ``aria_label`` is aria-label.
    """
    element = Element(
        name, {key.strip("_").replace("_", "-"): _value(it) for key, it in attributes.items()}
    )
    for one in contents:
        _append(element, one)
    return element


def _value(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:.10g}"


def _append(element: Element, content: Content) -> None:
    if content is None:
        return
    if isinstance(content, Element):
        element.append(content)
    elif len(element):
        element[-1].tail = (element[-1].tail or "") + content
    else:
        element.text = (element.text or "") + content


def document(root: Element) -> bytes:
    """A file in ASCII: other characters are references, which are none inside style and script."""
    text = tostring(root, encoding="unicode", method="html")
    return b"<!DOCTYPE html>\n" + text.encode("ascii", "xmlcharrefreplace") + b"\n"


def section(name: str, heading: str, *contents: Content) -> Element:
    """A part of the page that its heading names."""
    title = tag("h2", heading, id=f"{name}-title")
    return tag("section", title, *contents, id=name, aria_labelledby=f"{name}-title")


def table(caption: str, headings: Sequence[str], rows: Iterable[Sequence[Content]]) -> Element:
    """A table; the first cell of a row names it."""
    return table_of(caption, headings, [tag("tbody", *map(_row, rows))])


def table_of(
    caption: str, headings: Sequence[Content], bodies: Sequence[Element], class_: str = "plain"
) -> Element:
    """A table of bodies, in a box of its own, which is scrolled where the window is narrow."""
    head = tag("thead", tag("tr", *(tag("th", it, scope="col") for it in headings)))
    whole = tag("table", tag("caption", caption), head, *bodies, class_=class_)
    return tag("div", whole, class_="scroll", tabindex="0", role="region", aria_label=caption)


def _row(cells: Sequence[Content]) -> Element:
    return tag("tr", tag("th", cells[0], scope="row"), *(tag("td", it) for it in cells[1:]))


def elided_rows(
    items: Sequence[Item],
    columns: int,
    rows_of: Callable[[int, Item], Iterable[Sequence[str]]],
    most: int = 30,
) -> Iterator[Sequence[str]]:
    """Rows of numbered items; of many items the middle is left out and counted.

    Args:
        items: any.
        columns: in a row.
        rows_of: from an item and its number, the first being 1, to its rows.
        most: so many items are shown.
    """
    for number, it in elided(items, most):
        if it is None:
            yield (f"({number} more)", *[""] * (columns - 1))
        else:
            yield from rows_of(number, it)


def legend(names: Mapping[str, str]) -> Element:
    """What colours mean: words by the class that has the colour."""
    items = (tag("li", tag("span", class_=f"swatch {it}"), names[it]) for it in names)
    return tag("ul", *items, class_="legend")


def disclosed(summary: str, *contents: Content) -> Element:
    """What is shown when it is asked for."""
    return tag("details", tag("summary", summary), *contents)


def bullets(lines: Iterable[str]) -> Element | None:
    """A list; None where it would be empty."""
    items = [tag("li", line) for line in lines]
    return tag("ul", *items) if items else None
