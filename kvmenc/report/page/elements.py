"""HTML as a tree: what is text is put in as text, so that nothing a capture says can be markup."""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.etree.ElementTree import Element, tostring

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    #: What may stand inside an element; None is nothing.
    Content = Element | str | None

__all__ = ["bullets", "disclosed", "document", "section", "table", "tag"]


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


def table(
    caption: str,
    headings: Iterable[str],
    rows: Iterable[Iterable[Content]],
    *bodies: Element,
    class_: str = "",
) -> Element:
    """A table in a box of its own, which is scrolled where the window is narrow.

    Args:
        caption: what it shows.
        headings: of its columns; the first column names the rows.
        rows: cells.
        bodies: rows that are made already, below those.
        class_: of the table.
    """
    head = tag("thead", tag("tr", *(tag("th", it, scope="col") for it in headings)))
    made = [tag("tbody", *map(_row, rows))]
    parts = (tag("caption", caption), head, *(body for body in (*made, *bodies) if len(body)))
    whole = tag("table", *parts, **({"class_": class_} if class_ else {}))
    return tag("div", whole, class_="scroll", tabindex="0", role="region", aria_label=caption)


def _row(cells: Iterable[Content]) -> Element:
    first, *others = cells
    return tag("tr", tag("th", first, scope="row"), *(tag("td", it) for it in others))


def disclosed(summary: str, *contents: Content) -> Element:
    """What is shown when it is asked for."""
    return tag("details", tag("summary", summary), *contents)


def bullets(lines: Iterable[str]) -> Element | None:
    """A list; None where it would be empty."""
    items = list(_items(lines))
    return tag("ul", *items) if items else None


def _items(lines: Iterable[str]) -> Iterator[Element]:
    for line in lines:
        yield tag("li", line)
