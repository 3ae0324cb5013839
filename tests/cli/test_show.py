"""``kvmenc show`` as a user runs it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from kvmenc import cli
from kvmenc.capture import open_capture, save_capture
from tests.capture.captures import sound_bitmaps, sound_capture
from tests.cli.test_plan_command import on_a_terminal
from tests.cli.test_root import here, kvmenc
from tests.schemas.validator import faults

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("captures") / "guest.capture"
    save_capture(sound_capture(), path, sound_bitmaps())
    return path


def test_into_a_pipe_it_is_plain_and_80_columns_wide(file: Path) -> None:
    run = kvmenc("show", str(file))
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.isascii()
    assert "\x1b" not in run.stdout
    assert max(map(len, run.stdout.splitlines())) <= 80


def test_colour_is_for_terminals_and_no_color_turns_it_off(file: Path) -> None:
    assert "\x1b[31m" in on_a_terminal("show", str(file))
    assert "\x1b[31m" not in on_a_terminal("show", str(file), NO_COLOR="1")


def test_json_is_one_object_with_the_facts_and_what_the_bitmaps_say(file: Path) -> None:
    run = here("show", str(file), "--json")
    assert (run.returncode, run.stderr) == (0, "")
    answer: Any = json.loads(run.stdout)
    assert answer["schema"] == "kvmenc.show/1"
    assert not faults(answer)
    assert answer["capture"]["schema"] == "kvmenc.capture/1"
    assert answer["capture"]["windows"][0]["ended_by"] == "another-reader"
    ram, bios = answer["blocks"]
    assert (ram["dirtied_private_pages"], ram["dirtied_shared_pages"]) == (47, 30)
    assert bios["zero_pages"] is None
    cells = answer["maps"][0]["cells"]
    assert sum(cells["private"]) == 600
    assert len(cells["dirty"]) == len(cells["private"])


@pytest.mark.parametrize("content", [b"", b"{}", b"PK\x03\x04", b"\x7fELF" + b"\0" * 100])
def test_a_bad_file_is_exit_status_4_and_one_line(tmp_path: Path, content: bytes) -> None:
    bad = tmp_path / "bad.capture"
    bad.write_bytes(content)
    run = here("show", str(bad))
    assert (run.returncode, run.stdout) == (4, "")
    assert run.stderr.startswith(f"kvmenc: {bad}: not a usable capture: ")
    assert run.stderr.count("\n") == 1


def test_a_damaged_bitmap_is_exit_status_4_and_nothing_is_shown(file: Path, tmp_path: Path) -> None:
    data = file.read_bytes()
    at = data.index(b"dirty/0.npy") + 60
    (tmp_path / "bad.capture").write_bytes(data[:at] + b"\xff\xff" + data[at + 2 :])
    run = here("show", str(tmp_path / "bad.capture"))
    assert (run.returncode, run.stdout) == (4, "")
    assert "member dirty/0.npy" in run.stderr


def test_a_capture_of_a_demo_is_shown_with_its_bitmaps(tmp_path: Path) -> None:
    path = tmp_path / "demo.capture"
    run = here("demo", "--backend", "fake", "-o", str(path), "--json")
    demo: Any = json.loads(run.stdout)
    with open_capture(path) as kept:
        assert json.loads(run.stdout)["capture"]["blocks"][0]["name"] == "ram"
        assert kept.kinds("ram") == ("dirty", "private", "zero")
    shown: Any = json.loads(here("show", str(path), "--json").stdout)
    assert shown["capture"] == demo["capture"]
    ram = shown["blocks"][0]
    (window,) = shown["capture"]["windows"]
    assert ram["dirtied_private_pages"] == window["points"][-1]["private_pages"][0]
    assert ram["dirtied_shared_pages"] == window["points"][-1]["shared_pages"][0]


def test_the_docs_show_what_is_printed(tmp_path: Path) -> None:
    """Line for line, but for those with numbers, which differ from run to run."""
    path = tmp_path / "demo.capture"
    assert here("demo", "--backend", "fake", "-o", str(path)).returncode == 0
    printed = [line.rstrip() for line in here("show", str(path)).stdout.splitlines()]
    page = (ROOT / "docs" / "capture.md").read_text()
    shown = page.split("## The capture file")[1].split("```")[1]
    fixed = [line for line in shown.splitlines() if re.fullmatch(r"[A-Za-z][^0-9]+", line)]
    assert len(fixed) == 4
    assert set(fixed) <= set(printed)


def test_the_examples_of_the_help_run(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "guest.capture").write_bytes(file.read_bytes())
    text = CliRunner().invoke(cli.root, ["show", "--help"]).stdout
    examples = [line.split("|")[0].split() for line in text.splitlines() if "kvmenc show g" in line]
    assert len(examples) == 2
    for example in examples:
        assert CliRunner().invoke(cli.root, example[1:]).exit_code == 0
    assert 'numpy.load("guest.capture")["dirty/0"]' in text
    with np.load("guest.capture") as arrays:
        assert np.array_equal(arrays["dirty/0"], sound_bitmaps()["dirty", "pc.ram"])
