"""What is shown of a capture, with and without bitmaps."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings

from kvmenc.capture import (
    BlockFacts,
    Capture,
    CurvePoint,
    EndedBy,
    Window,
    curve_of,
    open_capture,
    save_capture,
)
from kvmenc.memory.words import bits_at
from kvmenc.report.show import ShowReport, print_show
from kvmenc.report.terminal import Terminal
from tests.capture.captures import captures, sound_bitmaps, sound_capture

if TYPE_CHECKING:
    from pathlib import Path

    from tests.capture.captures import Bitmaps

NOTHING_WRITTEN = Capture(
    source="nobody",
    private_source="all private",
    blocks=(BlockFacts("ram", 100, 100, None, 0),),
    curve=(CurvePoint(1000, 0, 0),),
)


def report_of(path: Path, capture: Capture, bitmaps: Bitmaps | None = None) -> ShowReport:
    save_capture(capture, path / "a.capture", bitmaps or {})
    with open_capture(path / "a.capture") as file:
        return ShowReport.of(file)


def shown(report: ShowReport) -> list[str]:
    file = io.StringIO()
    print_show(report, Terminal(file=file, width=80, markup=False, highlight=False, emoji=False))
    return [line.rstrip() for line in file.getvalue().splitlines()]


@settings(deadline=None)
@given(captures())
def test_counts_are_those_of_the_bitmaps_and_else_of_the_longest_window(
    tmp_path_factory: pytest.TempPathFactory, drawn: tuple[Capture, Bitmaps]
) -> None:
    capture, bitmaps = drawn
    report = report_of(tmp_path_factory.getbasetemp(), capture, bitmaps)
    assert report.capture == capture
    ends = [window.points[-1] for window in capture.windows]
    last = max(ends, key=lambda point: point.ms, default=None)
    for i, (row, block) in enumerate(zip(report.blocks, capture.blocks, strict=True)):
        pages = np.arange(block.npages)
        assert row.private_pages + row.shared_pages == row.npages == block.npages
        dirtied = (row.dirtied_private_pages, row.dirtied_shared_pages)
        if {("dirty", block.name), ("private", block.name)} <= bitmaps.keys():
            dirty = bits_at(bitmaps["dirty", block.name], pages)
            private = bits_at(bitmaps["private", block.name], pages)
            assert dirtied == ((dirty & private).sum(), (dirty & ~private).sum())
        elif last:
            assert dirtied == (last.private_pages[i], last.shared_pages[i])
        else:
            assert dirtied == (None, None)
    with_bitmaps = {name for _, name in bitmaps}
    assert [it.block for it in report.maps] == [
        it.name for it in capture.blocks if it.name in with_bitmaps
    ]


@settings(deadline=None)
@given(captures())
def test_anything_sound_is_shown_in_80_columns(
    tmp_path_factory: pytest.TempPathFactory, drawn: tuple[Capture, Bitmaps]
) -> None:
    lines = shown(report_of(tmp_path_factory.getbasetemp(), *drawn))
    assert lines[0].startswith("Capture of")


def test_everything_that_a_capture_says_is_shown(tmp_path: Path) -> None:
    lines = shown(report_of(tmp_path, sound_capture(), sound_bitmaps()))
    text = " ".join(" ".join(lines).split())
    for said in (
        "Capture of scratch guest on fake Made 2026-11-23 18:00:00 UTC by kvmenc 0.1.0; KVM's",
        "KVM's dirty log read without taking from it. Host: kernel 6.12. Private/shared:",
        "Private/shared: bitmap v7; it was there.",
        "pc.ram 1,000 600 400 100 pc.bios 64 64 0 - all 1,064 664 400 -",
        "pc.ram: zero pages are an estimate; with 95 % confidence they are 90 to 120",
        "pc.ram 47 30 7 0 pc.bios 0 0 0 64 all 47 30 7 64",
        "- pages changed between private and shared: 2 times",
        "1 0 s 100 ms 250 us 2 another reader took dirty bits",
        "p private, s shared, d by devices",
        "Devices wrote about 7 pages that no vCPU wrote, in 80 ms: 5 to 9 with 95 %",
        "with 95 % confidence, by comparing 500 of 1,000 pages.",
        "pc.ram, 3.91 MiB: a cell is 64 KiB",
        "pc.bios, 256 KiB: private all",
        "- switching the dirty log on took QEMU up to 3 ms, 1 ms per GiB",
        "- a thread of QEMU was stopped 2 times: longest 80 us",
        "- one - two",
    ):
        assert said in text, said


def test_what_is_not_known_is_a_dash(tmp_path: Path) -> None:
    lines = shown(report_of(tmp_path, NOTHING_WRITTEN))
    rows = [line.split() for line in lines if line.startswith("ram ")]
    assert rows == [["ram", "100", "100", "0", "-"], ["ram", "-", "-", "-", "0"]]
    assert "No page was written." in lines
    assert not any("Memory map" in line or "Windows" in line for line in lines)


@pytest.mark.parametrize("ended_by", EndedBy.__args__)  # type: ignore[attr-defined]
def test_why_a_window_ended_is_said_in_words(tmp_path: Path, ended_by: EndedBy) -> None:
    window = msgspec.structs.replace(sound_capture().windows[0], ended_by=ended_by)
    capture = msgspec.structs.replace(sound_capture(), windows=(window,))
    row = next(it for it in shown(report_of(tmp_path, capture)) if it.startswith("     1  "))
    assert row.split("2  ")[-1].count(" ") >= 2


def test_the_middle_of_many_windows_and_blocks_is_left_out_and_counted(tmp_path: Path) -> None:
    blocks = tuple(BlockFacts(f"rom{i}", 1, 0, 0, 0) for i in range(50))
    none = (0,) * 50
    points = tuple(
        msgspec.structs.replace(it, private_pages=none, shared_pages=none)
        for it in sound_capture().windows[0].points
    )
    windows = tuple(Window(1000.0 * i, 1, "time", points) for i in range(60))
    capture = msgspec.structs.replace(
        NOTHING_WRITTEN, blocks=blocks, windows=windows, curve=curve_of(windows)
    )
    lines = shown(report_of(tmp_path, capture))
    assert len(lines) < 70
    assert sum("(36 more)" in line for line in lines) == 2
    assert sum("(46 more)" in line for line in lines) == 1


@pytest.mark.parametrize("text", ["[bold]x[/bold]", "[/no]", ":smile:", "[link=http://x]y"])
def test_what_a_capture_says_is_printed_as_it_is(tmp_path: Path, text: str) -> None:
    block = BlockFacts(text, 100, 50, 0, 0)
    capture = msgspec.structs.replace(NOTHING_WRITTEN, source=text, blocks=(block,), notes=(text,))
    words = np.array([2**50 - 1, 0], "<u8")
    lines = shown(report_of(tmp_path, capture, {("private", text): words}))
    assert lines[0] == f"Capture of {text}"
    assert f"{text}, 400 KiB: a cell is 8 KiB" in lines
    assert f"- {text}" in lines
