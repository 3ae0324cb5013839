"""``kvmenc stream`` as a user runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from kvmenc import cli
from tests.cli.test_root import here, kvmenc
from tests.schemas.validator import faults
from tests.stream.raw import BLOCKS, Ram, call, head
from tests.stream.test_against import saved

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def stream(tmp_path: Path) -> Path:
    """Pages 0 to 99 of pc.ram encrypted, some of these in the clear later on."""
    ram = Ram("v3")
    for page in range(100):
        ram.page("encrypted", "pc.ram", page)
    for page in range(100, BLOCKS["pc.ram"]):
        ram.page("zero" if page % 2 else "normal", "pc.ram", page)
    first = call(ram.take())
    for page in range(90, 95):
        ram.page("normal", "pc.ram", page)
    path = tmp_path / "guest.stream"
    path.write_bytes(head() + first + call(ram.take()) + call(b"", last=True) + b"\0")
    return path


def test_into_a_pipe_it_is_plain_and_80_columns_wide(stream: Path) -> None:
    run = kvmenc("stream", str(stream), "--page", "pc.ram:0x5a123", "--page", "b:0")
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.isascii()
    assert max(map(len, run.stdout.splitlines())) <= 80
    assert "dialect v3 or v4" in run.stdout
    assert "Page at offset 0x5a000 of pc.ram, sent 2 times" in run.stdout
    assert "Page at offset 0x0 of b, sent 0 times" in run.stdout
    assert "Rounds: at least 3, in 3 calls" in run.stdout
    assert "47 pages were never sent" in run.stdout


def test_stdin_is_read(stream: Path) -> None:
    command = [sys.executable, "-m", "kvmenc", "stream", "-", "--json"]
    with stream.open("rb") as file:
        run = subprocess.run(command, stdin=file, capture_output=True, check=True)
    assert json.loads(run.stdout)["bytes_total"] == stream.stat().st_size


def test_json_adds_up(stream: Path) -> None:
    run = here("stream", str(stream), "--json", "--page", "pc.ram:0x5a123")
    assert (run.returncode, run.stderr) == (0, "")
    answer: Any = json.loads(run.stdout)
    assert answer["schema"] == "kvmenc.stream/1"
    assert not faults(answer)
    assert sum(answer["bytes"].values()) == answer["bytes_total"] == stream.stat().st_size
    assert answer["rounds"][0]["pages"] == {"normal": 100, "zero": 100, "encrypted": 100}
    assert answer["rounds"][1]["sent_before_pages"] == 5
    (page,) = answer["history"]
    assert [(it["round"], it["kind"]) for it in page["sendings"]] == [
        (1, "encrypted"),
        (2, "normal"),
    ]


def test_pages_of_the_wrong_road_are_named_and_the_answer_is_no(
    stream: Path, tmp_path: Path
) -> None:
    """Of the private pages 80 to 109, the last ten and five others went in the clear."""
    capture = saved(tmp_path / "guest.capture", set(range(80, 110)))
    run = here("stream", str(stream), "--against", str(capture))
    assert (run.returncode, run.stderr) == (1, "")
    assert max(map(len, run.stdout.splitlines())) <= 80
    assert "95 of 300 pages took the wrong road" in run.stdout
    assert "private, sent in the clear: 15 pages" in run.stdout
    assert "shared, sent encrypted: 80 pages" in run.stdout
    right = saved(tmp_path / "right.capture", set(range(100)) - set(range(90, 95)))
    answer: Any = json.loads(here("stream", str(stream), "--against", str(right), "--json").stdout)[
        "against"
    ]
    assert (answer["shared_encrypted_pages"], answer["private_in_clear_pages"]) == (5, 0)
    assert answer["at_last_pages"] == 0
    assert answer["ranges"] == [
        {"block": "pc.ram", "page": 90, "npages": 5, "was": "shared", "at_last": False}
    ]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--page", "pc.ram"), "is no page: write RAMBLOCK:OFFSET"),
        (("--page", "pc.rom:0"), "RAMBlock 'pc.rom' is not one of pc.ram, b, vga.vram"),
        (("--page", "b:0x28000"), "beyond b's 0x28000 bytes"),
        (("--dialect", "csv"), "expected another record after 0x200"),
        (("--against", "none.capture"), "none.capture: cannot be read"),
    ],
)
def test_bad_input_is_one_line_and_4(stream: Path, options: tuple[str, ...], told: str) -> None:
    run = here("stream", str(stream), *options)
    assert (run.returncode, run.stdout) == (4, "")
    assert told in run.stderr
    assert run.stderr.count("\n") == 1


def test_what_is_no_stream_is_refused(tmp_path: Path) -> None:
    for name, told in ((tmp_path, "cannot be read"), (tmp_path / "none", "No such file")):
        run = here("stream", str(name))
        assert run.returncode == 4
        assert told in run.stderr


def test_the_examples_of_the_help_run(
    stream: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(tmp_path / "guest.capture", set(range(100)))
    monkeypatch.chdir(tmp_path)
    text = CliRunner().invoke(cli.root, ["stream", "--help"]).stdout
    assert max(map(len, text.splitlines())) <= 80
    found = [line.split("|")[0].split() for line in text.splitlines() if "kvmenc stream" in line]
    examples = [it[1:] for it in found if it[0] == "kvmenc"]
    assert len(examples) == 3
    for example in examples:
        assert CliRunner().invoke(cli.root, example).exit_code in {0, 1}
