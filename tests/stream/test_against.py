"""Roads against a capture's private map, by a loop over records."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kvmenc.capture import BlockFacts, Capture, CurvePoint, open_capture, save_capture
from kvmenc.errors import InputError
from kvmenc.memory.words import from_pages
from kvmenc.stream import summarize
from tests.stream.raw import BLOCKS, Made, call, head, streams
from tests.stream.reading import as_file

if TYPE_CHECKING:
    from pathlib import Path

    from kvmenc.stream.result import AgainstReport


def saved(path: Path, private: set[int], npages: int = BLOCKS["pc.ram"]) -> Path:
    """A capture in which some of pc.ram is private, all of b, and vga.vram is not known."""
    blocks = (
        BlockFacts("pc.ram", npages, len(private), None, 0),
        BlockFacts("b", BLOCKS["b"], BLOCKS["b"], None, 0),
    )
    capture = Capture(
        source="a test", private_source="a test", blocks=blocks, curve=(CurvePoint(1, 0, 0),)
    )
    words = from_pages(np.array(sorted(private), np.int64), npages)
    save_capture(capture, path, {("private", "pc.ram"): words})
    return path


def compared(data: bytes, capture: Path) -> AgainstReport:
    with as_file(data) as path, open_capture(capture) as file:
        report = summarize(path, against=file, against_name="guest.capture").against
    assert report is not None
    return report


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(streams(10), st.sets(st.integers(0, BLOCKS["pc.ram"] - 1), min_size=1))
def test_pages_of_the_wrong_road_are_those_of_a_loop(
    tmp_path: Path, made: Made, private: set[int]
) -> None:
    report = compared(made.data, saved(tmp_path / "guest.capture", private))
    ever: dict[tuple[str, int], str] = {}
    last: dict[tuple[str, int], bool] = {}
    for it in (record for one in made.calls for record in one):
        if it.block == "vga.vram":
            continue
        is_private = it.block == "b" or it.page in private
        last[it.block, it.page] = is_private != (it.kind == "encrypted")
        if last[it.block, it.page]:
            ever[it.block, it.page] = "private" if is_private else "shared"
    assert report.compared_pages == len(last)
    assert report.private_in_clear_pages == sum(it == "private" for it in ever.values())
    assert report.shared_encrypted_pages == sum(it == "shared" for it in ever.values())
    assert report.at_last_pages == sum(last.values())
    named = {
        (it.block, page): (it.was, it.at_last)
        for it in report.ranges
        for page in range(it.page, it.page + it.npages)
    }
    assert named == {key: (was, last[key]) for key, was in ever.items()}
    assert report.unknown_blocks == ["vga.vram"]


def test_a_capture_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    data = head() + call(b"", last=True) + b"\0"
    with pytest.raises(
        InputError, match=r"pc\.ram has 299 pages in the capture, 300 in the stream"
    ):
        compared(data, saved(tmp_path / "a.capture", {1}, 299))
    other = head({"other": 3}) + call(b"", last=True) + b"\0"
    with pytest.raises(InputError, match="the capture has none of other"):
        compared(other, saved(tmp_path / "b.capture", {1}))
    with open_capture(tmp_path / "b.capture") as file:
        save_capture(file.capture, tmp_path / "c.capture")
    with pytest.raises(InputError, match="it has no bitmap"):
        compared(data, tmp_path / "c.capture")
