"""The page as a parser sees it: sound, harmless whatever the capture says, nothing from outside."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import zlib
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest
from hatchling.builders.wheel import WheelBuilder
from hypothesis import given, settings

from kvmenc.capture import BlockFacts, Capture, CurvePoint, SegmentFacts, provenance_now
from kvmenc.memory.words import bits_at, from_pages
from kvmenc.report.page.document import page
from tests.capture.captures import captures, sound_bitmaps, sound_capture
from tests.report.page.pages import memory_of, page_of, parsed, some_plan, whole_plan

if TYPE_CHECKING:
    from kvmenc.capture import Bitmaps
    from tests.report.page.pages import Node

HOSTILE = [
    "<script>alert(1)</script>",
    "</script><script>alert(1)</script>",
    "</title></style><img src=x onerror=alert(1)>",
    "\"'><svg onload=alert(1)>",
    "&lt;b&gt; &amp; &#60;",
    "<!-- ]]> {{ 7*7 }}",
    "javascript:alert(1)",
    "\u65e5\u672c <\xfc>",
]


def simple(**changes: object) -> Capture:
    capture = Capture(
        source="a guest",
        private_source="all private",
        blocks=(BlockFacts("ram", 1000, 600, 100, 0),),
        curve=(CurvePoint(100, 3, 2), CurvePoint(1000, 30, 20)),
    )
    return msgspec.structs.replace(capture, **changes)


def checked(content: bytes) -> Node:
    """What must hold of every page."""
    root = parsed(content)
    ids = [it.attributes["id"] for it in root.all() if "id" in it.attributes]
    assert len(ids) == len(set(ids))
    for it in root.all():
        for key, value in it.attributes.items():
            assert key not in {"src", "style", "srcset", "action"}, it.name
            assert not key.startswith("on")
            if key == "href":
                assert value.removeprefix("#") in ids
            if key in {"aria-labelledby", "aria-describedby"}:
                assert set(value.split()) <= set(ids)
        assert it.name not in {"link", "img", "iframe", "object", "embed", "base"}
    run = [it for it in root.all("script") if "type" not in it.attributes]
    assert [it.text() for it in run] == [map_script()]
    (policy,) = (it for it in root.all("meta") if "http-equiv" in it.attributes)
    (style,) = root.all("style")
    for text in (map_script(), style.text()):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy.attributes["content"]
    assert "default-src 'none'" in policy.attributes["content"]
    return root


def map_script() -> str:
    return files("kvmenc.report.page").joinpath("map.js").read_text("ascii")


def cells_of(root: Node) -> list[list[int]]:
    packed = base64.b64decode(root.by_id("map-cells").text())
    counts = np.frombuffer(zlib.decompress(packed, wbits=-zlib.MAX_WBITS), "<u4")
    cells: list[list[int]] = counts.reshape(-1, 4).tolist()
    return cells


@settings(max_examples=15)
@given(captures())
def test_anything_sound_becomes_a_sound_page(
    tmp_path_factory: pytest.TempPathFactory, drawn: tuple[Capture, Bitmaps]
) -> None:
    capture, bitmaps = drawn
    root = checked(page_of(tmp_path_factory.getbasetemp(), capture, bitmaps))
    facts = json.loads(root.by_id("map-facts").text())
    assert [it["npages"] for it in facts["blocks"]] == [it.npages for it in capture.blocks]
    cells = cells_of(root)
    for drawn_block, block in zip(facts["blocks"], capture.blocks, strict=True):
        at = drawn_block["first_cell"]
        if at is None:
            rows = drawn_block["rows"]
        else:
            rows = [[0, *row] for row in cells[at : at + -(-block.npages // facts["cell_pages"])]]
        assert sum(row[1] for row in rows) == block.private_pages
        if {("dirty", block.name), ("private", block.name)} <= bitmaps.keys():
            pages = np.arange(block.npages)
            dirty = bits_at(bitmaps["dirty", block.name], pages)
            private = bits_at(bitmaps["private", block.name], pages)
            assert sum(row[3] for row in rows) == (dirty & private).sum()
            assert sum(row[4] for row in rows) == (dirty & ~private).sum()


@pytest.mark.parametrize("text", HOSTILE)
def test_what_a_capture_says_is_text_and_never_markup(tmp_path: Path, text: str) -> None:
    facts = sound_capture()
    renamed = {it.name: f"{text}{i}" for i, it in enumerate(facts.blocks)}
    capture = msgspec.structs.replace(
        facts,
        source=text,
        private_source=text,
        private_reason=text,
        blocks=tuple(msgspec.structs.replace(it, name=renamed[it.name]) for it in facts.blocks),
        slots=tuple(msgspec.structs.replace(it, block=renamed[it.block]) for it in facts.slots),
        provenance=msgspec.structs.replace(
            facts.provenance or provenance_now("peek"), qemu=text, machine=text, kernel=text
        ),
        notes=(text,),
    )
    bitmaps = {(kind, renamed[name]): words for (kind, name), words in sound_bitmaps().items()}
    plan, grid = whole_plan()
    plan = msgspec.structs.replace(plan, guest=msgspec.structs.replace(plan.guest, source=text))
    root = checked(page(memory_of(tmp_path, capture, bitmaps), plan, grid))
    assert root.by_id("map-block").text().count(text) == 2
    assert text in {it.text() for it in root.all("li")}
    assert any(it.text().startswith(text) for it in root.all("h1"))
    title = next(root.all("title"))
    assert title.text() == f"Migrating {text}: does not converge"


def test_the_script_gets_numbers_alone(tmp_path: Path) -> None:
    root = checked(page_of(tmp_path, sound_capture(), sound_bitmaps()))
    text = re.sub(r'"[a-z_]+":', "", root.by_id("map-facts").text())
    assert not set(text) - set("0123456789[]{},truefalsn.")


def test_all_parts_are_there_in_the_order_in_which_they_are_asked_for(tmp_path: Path) -> None:
    root = checked(page(memory_of(tmp_path, sound_capture(), sound_bitmaps()), *whole_plan()))
    names = ["verdict", "advice", "rounds", "grid", "curve", "memory", "facts"]
    assert [it.attributes["id"] for it in root.all("section")] == names
    assert [it.attributes["href"] for it in root.all("a")] == [f"#{name}" for name in names]
    text = " ".join(root.text().split())
    for said in (
        "Does not converge: given up after",
        "What would make it converge, each alone:",
        "90 to 120",
        "Devices wrote about 7 pages that no vCPU wrote",
        "KVM's dirty log read without taking from it",
        "a thread of QEMU was stopped 2 times: longest 80 us",
        "another reader took dirty bits",
        "The map goes down to a single page everywhere.",
        "0x100-0x4e7",
    ):
        assert said in text, said


def test_every_picture_has_a_name_and_a_table_behind_it(tmp_path: Path) -> None:
    root = checked(page(memory_of(tmp_path, sound_capture(), sound_bitmaps()), *whole_plan()))
    for name in ("rounds", "grid", "curve", "memory"):
        tables = list(root.by_id(name).all("table"))
        assert tables, name
        for it in tables:
            assert next(it.all("caption")).text()
            assert all(th.attributes["scope"] for th in it.all("th"))
    for it in root.all("svg"):
        hidden = it.attributes.get("aria-hidden") == "true"
        assert (
            hidden or it.attributes.get("role") == "img" or "preserveaspectratio" in it.attributes
        )
    (chart,) = (it for it in root.all("svg") if it.attributes.get("role") == "img")
    assert next(chart.all("title")).text() == "Pages written over time: private, shared, devices"


def test_bars_of_a_round_are_its_time_by_road(tmp_path: Path) -> None:
    plan, _ = some_plan()
    root = checked(page_of(tmp_path, simple()))
    bars = list(root.by_id("rounds").all("svg"))
    assert len(bars) == min(len(plan.rounds), 31)
    later_ms = max(it.ms for it in plan.rounds[1:])
    for number, (bar, one) in enumerate(zip(bars[:10], plan.rounds[:10], strict=True)):
        full_ms = later_ms if number else one.ms
        widths = {
            it.attributes["class"]: float(it.attributes["width"].rstrip("%")) for it in bar.all()
        }
        times = {
            "shared": one.ms_by_road.normal,
            "zero": one.ms_by_road.zero,
            "private": one.ms_by_road.encrypted,
        }
        expected = {name: 100 * ms / full_ms for name, ms in times.items() if ms}
        assert widths == pytest.approx(expected, abs=1e-3)


def test_the_line_of_a_curve_goes_through_its_points(tmp_path: Path) -> None:
    """Of 100 ms to 1 s, the largest at the highest mark below the headroom."""
    root = checked(page_of(tmp_path, simple()))
    lines = {it.attributes["class"]: it.attributes["points"] for it in root.all("polyline")}
    ends = {}
    for name, points in lines.items():
        places = [tuple(map(float, it.split(","))) for it in points.split()]
        assert places == sorted(places)
        ends[name] = places[0], places[-1]
    assert ends["line private"] == ((0.0, 217.9), (600.0, 19.2))
    assert ends["line shared"] == ((0.0, 225.3), (600.0, 92.8))


def test_a_curve_of_very_many_points_is_no_longer_than_the_drawing_is_wide(
    tmp_path: Path,
) -> None:
    points = tuple(CurvePoint(float(i), i // 40, 0) for i in range(1, 20_001))
    root = checked(page_of(tmp_path, simple(curve=points)))
    assert all(len(it.attributes["points"].split()) <= 600 for it in root.all("polyline"))
    assert sum(1 for _ in root.by_id("curve").all("tr")) < 40


def test_where_nothing_was_written_there_is_no_picture(tmp_path: Path) -> None:
    root = checked(page_of(tmp_path, simple(curve=(CurvePoint(1000, 0, 0),))))
    assert "No page was written." in root.by_id("curve").text()
    assert not list(root.by_id("curve").all("svg"))


def test_without_bitmaps_the_map_is_drawn_from_segments(tmp_path: Path) -> None:
    segments = (SegmentFacts(640, 600, 0, 3, 1), SegmentFacts(360, 0, 100, 0, 7))
    block = BlockFacts("ram", 1000, 600, 100, 0, segments=segments)
    root = checked(page_of(tmp_path, simple(blocks=(block,))))
    (drawn,) = json.loads(root.by_id("map-facts").text())["blocks"]
    assert drawn["rows"] == [[640, 600, 0, 3, 1], [360, 0, 100, 0, 7]]
    assert (drawn["first_cell"], drawn["dirty_known"]) == (None, True)
    assert "The capture holds no bitmaps" in root.by_id("memory").text()


def test_what_is_not_known_is_a_dash(tmp_path: Path) -> None:
    block = BlockFacts("ram", 1000, 600, None, 0)
    root = checked(page_of(tmp_path, simple(blocks=(block,))))
    (drawn,) = json.loads(root.by_id("map-facts").text())["blocks"]
    assert drawn["rows"] == [[1000, 600, 0, 0, 0]]
    assert not drawn["zero_known"]
    assert not drawn["dirty_known"]
    parts = list(root.by_id("memory").all("table"))[-1]
    cells = [it.text() for it in parts.all("td")]
    assert cells == ["0", "3.91 MiB", "600", "400", "-", "-", "-"]


def test_the_table_behind_the_map_has_the_counts_of_the_map(tmp_path: Path) -> None:
    npages = 5000
    pages = np.arange(0, npages, 3)
    bitmaps = {
        ("private", "ram"): from_pages(np.arange(2000), npages),
        ("dirty", "ram"): from_pages(pages, npages),
    }
    block = BlockFacts("ram", npages, 2000, None, 0)
    memory = memory_of(tmp_path, simple(blocks=(block,)), bitmaps)  # type: ignore[arg-type]
    parts = list(memory.parts(0))
    assert len(parts) <= 16
    at = 0
    for it in parts:
        here = np.arange(at, at + it.npages)
        written = here[here % 3 == 0]
        assert it.private_pages == (here < 2000).sum()
        assert it.dirty_private_pages == (written < 2000).sum()
        assert it.dirty_shared_pages == (written >= 2000).sum()
        at += it.npages
    assert at == npages


def test_a_thousand_blocks_make_no_endless_page(tmp_path: Path) -> None:
    blocks = tuple(BlockFacts(f"rom{i}", 1, 0, 0, 0) for i in range(1000))
    root = checked(page_of(tmp_path, simple(blocks=blocks, curve=(CurvePoint(1.0, 0, 1),))))
    assert sum(1 for _ in root.all("tr")) < 200
    assert "(986 more)" in root.by_id("memory").text()


def test_detail_that_was_left_out_is_said(tmp_path: Path) -> None:
    memory = memory_of(tmp_path, sound_capture(), sound_bitmaps(), room_bytes=0)
    root = checked(page(memory, *some_plan()))
    assert not [it for it in root.all("script") if it.attributes.get("id", "").startswith("bits")]
    text = " ".join(root.by_id("memory").text().split())
    assert "Left out for size: single pages in 2 of 2 stretches (4.16 MiB)." in text
    assert "the map goes down to 256 KiB" in text


def test_the_wheel_carries_the_style_and_the_script() -> None:
    root = Path(__file__).parents[3]
    carried = {it.distribution_path for it in WheelBuilder(str(root)).recurse_included_files()}
    beside = {it.name for it in (root / "kvmenc/report/page").iterdir() if it.is_file()}
    assert {"map.js", "page.css"} <= beside
    assert {f"kvmenc/report/page/{name}" for name in beside} <= carried
