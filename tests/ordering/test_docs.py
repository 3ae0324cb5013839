"""docs/order.md shows what the search finds, to the letter."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from kvmenc.report.order import print_order_check
from kvmenc.report.sequence import draw_into

if TYPE_CHECKING:
    from kvmenc.ordering import OrderCheck

pytestmark = pytest.mark.alone  # the search takes both cores

PAGE = Path(__file__).parents[2] / "docs" / "order.md"


def printed(found: OrderCheck) -> str:
    out = io.StringIO()
    console = Console(file=out, width=80, markup=False, highlight=False, emoji=False)
    print_order_check(found, console, timelines=True)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


def test_every_table_and_timeline_of_the_page_is_printed(found: OrderCheck) -> None:
    blocks = re.findall(r"^```\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 9
    text = printed(found)
    for block in blocks:
        assert block in text


def test_the_page_answers_each_claim_as_the_search_does(found: OrderCheck) -> None:
    rows = re.findall(
        r"^\| .* \| (does not hold|depends|holds): .* \|$", PAGE.read_text(), re.MULTILINE
    )
    asked = [answer.verdict.removesuffix(" on the protocol") for answer in found.answers]
    assert rows == asked


def test_its_pictures_are_those_that_are_drawn(found: OrderCheck, tmp_path: Path) -> None:
    shown = re.findall(r"\]\((order/.*\.svg)\)", PAGE.read_text())
    assert len(shown) == 2
    drawn = {path.name: path.read_text() for path in draw_into(tmp_path, found.timelines)}
    for path in shown:
        picture = PAGE.parent / path
        assert drawn[picture.name] == picture.read_text()
