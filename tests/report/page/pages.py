"""Pages for tests, and what a browser's parser would make of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from html.parser import HTMLParser
from typing import TYPE_CHECKING

from msgspec.structs import replace

from kvmenc.capture import open_capture, save_capture
from kvmenc.plan import Parameters, advise, interval_of, make_grid, make_plan
from kvmenc.report.page.document import page
from kvmenc.report.page.memory import Memory
from tests.plan.guests import GIB_PAGES, guest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from kvmenc.capture import Bitmaps, Capture
    from kvmenc.plan import Plan
    from kvmenc.plan.grid import Grid

#: Elements without an end (HTML Standard, 13.1.2).
_VOID = frozenset({"meta", "input"})


@dataclass
class Node:
    """An element and what is in it."""

    name: str
    attributes: dict[str, str]
    children: list[Node | str] = field(default_factory=list)

    def all(self, name: str | None = None) -> Iterator[Node]:
        """Elements below it, of a name if one is given."""
        for child in self.children:
            if isinstance(child, Node):
                if name in {None, child.name}:
                    yield child
                yield from child.all(name)

    def text(self) -> str:
        parts = (it if isinstance(it, str) else it.text() for it in self.children)
        return "".join(parts)

    def by_id(self, name: str) -> Node:
        (found,) = (it for it in self.all() if it.attributes.get("id") == name)
        return found


class _Tree(HTMLParser):
    """Every start has its end, and each attribute stands once."""

    def __init__(self) -> None:
        super().__init__()
        self.open = [Node("", {})]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        node = Node(tag, {key: value or "" for key, value in attrs})
        assert len(node.attributes) == len(attrs), tag
        self.open[-1].children.append(node)
        if tag not in _VOID:
            self.open.append(node)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop().name == tag

    def handle_data(self, data: str) -> None:
        self.open[-1].children.append(data)


def parsed(content: bytes) -> Node:
    tree = _Tree()
    tree.feed(content.decode("ascii"))
    tree.close()
    (root,) = tree.open
    return root


#: It does not converge with 128 MiB/s and 30 ms.
GUEST = guest(GIB_PAGES // 16, GIB_PAGES // 64, [(100, 60, 900), (1000, 350, 2000)])
PARAMETERS = Parameters(downtime_limit_ms=30.0)


@cache
def some_plan() -> tuple[Plan, Grid]:
    """To stand on pages whose plan does not matter: of another guest, without advice."""
    limits_ms = [100.0, 200.0, 300.0, 500.0, 1000.0, 2000.0]
    grid = make_grid(GUEST, [1e6, 1e9], limits_ms, PARAMETERS)
    assert {cell.verdict for cell in grid.cells} == {"converges", "does-not-converge"}
    return make_plan(GUEST, PARAMETERS), grid


@cache
def whole_plan() -> tuple[Plan, Grid]:
    """With advice and an interval."""
    plan, grid = some_plan()
    known = {"interval": interval_of(GUEST, PARAMETERS), "advice": advise(GUEST, PARAMETERS)}
    return replace(plan, **known), grid


def memory_of(
    folder: Path, capture: Capture, bitmaps: Bitmaps | None = None, room_bytes: int = 2**24
) -> Memory:
    save_capture(capture, folder / "a.capture", bitmaps or {})
    with open_capture(folder / "a.capture") as file:
        return Memory.of(file, room_bytes)


def page_of(folder: Path, capture: Capture, bitmaps: Bitmaps | None = None) -> bytes:
    return page(memory_of(folder, capture, bitmaps), *some_plan())
