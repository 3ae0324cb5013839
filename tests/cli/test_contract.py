"""What all commands promise of what they print: 80 columns, and plain text in a pipe."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from kvmenc.capture import save_capture
from kvmenc.cli import COMMANDS, root
from kvmenc.scratchrun import ScratchRun, open_scratch_backend
from kvmenc.stream import StreamWriter
from tests.cli.pty import BIN, on_terminal
from tests.test_architecture import ROOT

DATA = ROOT / "tests" / "data"

#: Every command with human output, as it is typed; {} is a folder with captures and a stream.
PRINTS = {
    "backtest": f"backtest --runs {DATA}/backtest/writer-1.json {DATA}/backtest/writer-2.json",
    "layout": f"layout --mtree {DATA}/qemu/q35-mtree.txt --ramblock {DATA}/qemu/q35-ramblock.txt",
    "link": "link --to 127.0.0.1",
    "plan": "plan {}/guest.capture",
    "probe": "probe --backend fake --self-test",
    "show": "show {}/guest.capture",
    "stream": "stream {}/guest.stream --page ram:0x1000",
    "sweep": "sweep {}/guest.capture --bandwidth 1Gbit,10Gbit",
}
#: `capture` prints what `show` does, and `migrate` a table of `backtest`: both need a QEMU. Those
#: that take seconds are looked at by the tests that they have anyway. What `completion` prints is
#: for a shell, and of `report` it is the path that was given.
OTHERS = {"capture", "migrate", "check-order", "demo", "dry-run", "completion", "report"}

#: Those that draw, or whose tables leave something out where there is no room.
DRAWS = ("show", "sweep", "backtest", "stream")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    with ScratchRun(open_scratch_backend("fake")) as run:
        list(run.syncs((25, 50, 100, 200)))
        capture, bitmaps = run.capture()
    save_capture(capture, folder / "guest.capture", bitmaps)
    with (folder / "guest.stream").open("wb") as file:
        writer = StreamWriter(file, [("ram", 64)])
        writer.begin_round(stopped=True)
        writer.zero_pages("ram", np.arange(64))
        writer.end()
    return folder


def printed(command: str, folder: Path, width: int) -> list[str]:
    runner = CliRunner(env={"COLUMNS": str(width), "NO_COLOR": None, "FORCE_COLOR": None})
    run = runner.invoke(root, command.format(folder).split())
    assert run.exit_code in {0, 1}, run.output
    assert run.stderr == ""
    return run.stdout.splitlines()


def test_every_command_is_here() -> None:
    assert set(PRINTS) | OTHERS == set(COMMANDS)


@pytest.mark.parametrize("name", PRINTS)
def test_what_is_printed_fits_80_columns_and_is_plain(name: str, folder: Path) -> None:
    lines = printed(PRINTS[name], folder, 80)
    assert lines
    assert [line for line in lines if len(line) > 80] == []
    assert [line for line in lines if not line.isprintable()] == []
    assert [line for line in lines if line.endswith(" ")] == []


@pytest.mark.parametrize(
    ("command", "unbuffered"),
    [("--help", ""), ("show {}/guest.capture", "1"), ("show {}/guest.capture --json", "")],
)
def test_a_full_disk_is_one_line_and_exit_status_4(
    command: str, unbuffered: str, folder: Path
) -> None:
    with Path("/dev/full").open("wb") as full:
        run = subprocess.run(
            [BIN / "kvmenc", *command.format(folder).split()],
            stdout=full,
            stderr=subprocess.PIPE,
            env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
            check=False,
        )
    assert run.returncode == 4
    assert run.stderr == b"kvmenc: stdout: cannot be written: No space left on device\n"


@pytest.mark.parametrize("width", [60, 200])
@pytest.mark.parametrize("name", DRAWS)
def test_narrow_and_wide_terminals(name: str, width: int, folder: Path) -> None:
    lines = printed(PRINTS[name], folder, width)
    assert [line for line in lines if len(line) > width] == []


def test_a_narrow_plan_has_a_column_less(folder: Path) -> None:
    lines = printed(PRINTS["plan"], folder, 60)
    assert [line for line in lines if len(line) > 60] == []
    (heading,) = (line for line in lines if line.startswith("round"))
    assert heading.split() == ["round", "dirty", "road", "pages", "bytes", "time"]


def test_a_narrow_memory_map_is_not_torn(folder: Path) -> None:
    narrow, usual = (printed(PRINTS["show"], folder, width) for width in (60, 80))
    kinds = ("  private |", "  zero    |", "  dirty   |")
    for lines, cells in ((narrow, 32), (usual, 64)):
        rows = [line for line in lines if line.startswith(kinds)]
        assert {len(row) for row in rows} == {12 + cells}
        assert all(row.endswith("|") for row in rows)


def test_a_pipe_gets_plain_text_and_no_progress(folder: Path) -> None:
    run = subprocess.run(
        [BIN / "kvmenc", *PRINTS["show"].format(folder).split()], capture_output=True, check=True
    )
    assert b"\x1b" not in run.stdout
    assert b"\r" not in run.stdout
    assert run.stderr == b""


@pytest.mark.parametrize(("no_color", "coloured"), [("", True), ("1", False)])
def test_colour_is_for_terminals_and_no_color_takes_it_away(
    no_color: str, coloured: bool, folder: Path
) -> None:
    command = ["kvmenc", *PRINTS["show"].format(folder).split()]
    with on_terminal(command, NO_COLOR=no_color) as terminal:
        assert terminal.wait() == 0
    # Bold stays, by https://no-color.org: it is no colour.
    assert ("\x1b[3" in terminal.text) == coloured
