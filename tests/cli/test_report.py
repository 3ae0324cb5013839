"""``kvmenc report`` as a user runs it; what the page is like is in tests/report/page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from msgspec.structs import replace

from kvmenc import cli
from kvmenc.capture import CurvePoint, save_capture
from tests.capture.captures import sound_bitmaps, sound_capture
from tests.cli.test_root import kvmenc
from tests.report.page.pages import parsed


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Idle, so that it is planned in no time."""
    path = tmp_path_factory.mktemp("captures") / "guest.capture"
    idle = (CurvePoint(1000, 0, 0),)
    save_capture(
        replace(sound_capture(), windows=(), device=None, curve=idle), path, sound_bitmaps()
    )
    return path


def report(*args: str | Path) -> Result:
    return CliRunner().invoke(cli.root, ["report", *map(str, args)])


def test_json_says_what_was_written(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    run = kvmenc("report", str(file), "-o", str(out), "--json", "--downtime-limit", "2s")
    assert (run.returncode, run.stderr) == (0, "")
    answer: Any = json.loads(run.stdout)
    assert answer["schema"] == "kvmenc.report/1"
    assert (answer["path"], answer["size_bytes"]) == (str(out), out.stat().st_size)
    assert (answer["stretches"], answer["left_out_stretches"]) == (2, 0)
    plan: Any = json.loads(kvmenc("plan", str(file), "--downtime-limit", "2s", "--json").stdout)
    assert answer["verdict"] == plan["verdict"]
    text = " ".join(parsed(out.read_bytes()).by_id("verdict").text().split())
    assert "downtime limit 2 s" in text
    assert "rules of qemu-10.0" in text.lower()
    assert [it.name for it in tmp_path.iterdir()] == ["report.html"]


def test_the_limits_asked_for_are_marked_in_the_grid(file: Path, tmp_path: Path) -> None:
    limits = ("--max-bandwidth", "300MB/s", "--downtime-limit", "250ms")
    for link, words in (("300MB/s", "plan above."), ("10Gbit", "whose link has 10 Gbit/s; in")):
        report(file, "-o", tmp_path / "a.html", *limits, "--link", link)
        grid = parsed((tmp_path / "a.html").read_bytes()).by_id("grid")
        asked = [it for it in grid.all() if "asked" in it.attributes.get("class", "").split()]
        assert [it.text() for it in asked[:2]] == ["250 ms", "2.4 Gbit/s"]
        assert len(asked) == 3
        assert asked[2].text().endswith("(the limits of the plan above)")
        assert words in grid.text()


@pytest.mark.parametrize("name", ["/dev/fd/1", "-"])
def test_a_page_on_stdout_is_nothing_but_the_page(file: Path, name: str) -> None:
    run = kvmenc("report", str(file), "-o", name)
    assert run.returncode == 0
    assert run.stdout.endswith("</html>\n")
    assert run.stderr.startswith(("/dev/fd/1: ", "/dev/stdout: "))


def test_a_picture_on_stdout_is_nothing_but_the_picture(file: Path) -> None:
    run = kvmenc("sweep", str(file), "--svg", "-")
    assert run.returncode == 0
    assert run.stdout.startswith(("<?xml", "<svg"))
    assert run.stdout.endswith("</svg>\n")
    assert "Cells: total time / pause" in run.stderr


def test_without_json_it_says_where_to_look_and_what_was_left_out(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = report(file, "-o", "a.html")
    assert result.exit_code == 0
    assert result.stdout == f"a.html: {_size('a.html')} KiB; open it in a browser.\n"
    lines = report(file, "-o", "a.html", "--detail", "0B").stdout.splitlines()
    assert lines[1:] == [
        "Left out of the map, for size: single pages in 2 of 2 stretches.",
        "--detail makes more room.",
    ]


def _size(name: str) -> str:
    return f"{Path(name).stat().st_size / 1024:.3g}"


def test_the_verdict_does_not_change_the_exit_status(file: Path, tmp_path: Path) -> None:
    options = ("-o", tmp_path / "a.html", "--time-limit", "1ms", "--json")
    result = report(file, *options)
    assert result.exit_code == 0
    assert json.loads(result.stdout)["verdict"] == "does-not-converge"


@pytest.mark.parametrize(
    ("options", "status", "complaint"),
    [
        ([], 2, "Missing option '-o'"),
        (["-o", "a.html", "--detail", "16"], 2, "write it like 4GiB"),
        (["-o", "a.html", "--max-bandwidth", "1Gb"], 2, "bits or bytes?"),
        (["-o", "a.html", "--xbzrle-cache", "1MiB"], 2, "goes with --xbzrle"),
        (["-o", "a.html", "--qemu", "1.0"], 4, "1.0"),
        (["-o", "none/a.html"], 4, "none/a.html: there is no folder none"),
        (["-o", "."], 4, ".: cannot be written: Is a directory"),
    ],
)
def test_bad_input_is_one_clear_line(
    file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    status: int,
    complaint: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    result = report(file, *options)
    assert (result.exit_code, result.stdout) == (status, "")
    assert complaint in result.stderr
    assert not list(tmp_path.iterdir())


def test_the_capture_is_never_written_over(file: Path) -> None:
    before = file.read_bytes()
    result = report(file, "-o", file)
    assert result.exit_code == 2
    assert "is given twice" in result.stderr
    assert file.read_bytes() == before


def test_an_old_page_stays_where_the_capture_is_bad(file: Path, tmp_path: Path) -> None:
    data = file.read_bytes()
    at = data.index(b"dirty/0.npy") + 60
    (tmp_path / "bad.capture").write_bytes(data[:at] + b"\xff\xff" + data[at + 2 :])
    out = tmp_path / "a.html"
    out.write_text("old")
    result = report(tmp_path / "bad.capture", "-o", out)
    assert (result.exit_code, result.stdout) == (4, "")
    assert "member dirty/0.npy" in result.stderr
    assert out.read_text() == "old"


def test_the_examples_of_the_help_run(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "guest.capture").write_bytes(file.read_bytes())
    text = report("--help").stdout
    assert max(map(len, text.splitlines())) <= 80
    examples = [line.split() for line in text.splitlines() if "kvmenc report g" in line]
    assert len(examples) == 3
    for example in examples:
        assert CliRunner().invoke(cli.root, example[1:]).exit_code == 0
