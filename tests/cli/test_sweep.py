from __future__ import annotations

import csv
import io
import json
import time
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING

import msgspec
import pytest
from click.testing import CliRunner, Result

from kvmenc import cli
from kvmenc.capture import save_capture
from kvmenc.plan import Parameters, make_grid
from kvmenc.report.sweep import sensitivity_line
from tests.cli.test_root import kvmenc
from tests.plan.guests import GIB_PAGES, guest
from tests.plan.test_precopy import AMD_STORY
from tests.schemas.validator import faults

if TYPE_CHECKING:
    from pathlib import Path

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("captures") / "busy.capture"
    capture = guest(
        8 * GIB_PAGES, GIB_PAGES, [(100, 50, 3_000), (1000, 300, 20_000), (9000, 900, 99_000)]
    )
    save_capture(msgspec.structs.replace(capture, source='a <busy> & "odd" guest'), path)
    return str(path)


def sweep(*args: str) -> Result:
    return CliRunner().invoke(cli.root, ["sweep", *args])


def test_the_default_grid_is_eight_bandwidths_by_six_downtime_limits(busy: str) -> None:
    result = kvmenc("sweep", busy, "--private-rate", "20000pps", "--json")
    assert (result.returncode, result.stderr) == (0, "")
    grid = json.loads(result.stdout)
    assert grid["schema"] == "kvmenc.sweep/1"
    assert [rate * 8 / 1e6 for rate in grid["bandwidths_bytes_per_s"]] == [
        100, 1000, 2000, 2500, 5000, 10_000, 25_000, 40_000,
    ]  # fmt: skip
    assert grid["downtime_limits_ms"] == [125, 250, 500, 1000, 2000, 5000]
    assert len(grid["cells"]) == 48
    assert {cell["verdict"] for cell in grid["cells"]} == {"converges", "does-not-converge"}
    assert grid["inputs"]["private_rate_pps"] == 20_000
    assert len(grid["sensitivity"]) == 4


def test_the_table_has_80_columns_and_a_dash_where_it_does_not_converge(busy: str) -> None:
    out = sweep(busy, "--private-rate", "20000pps").stdout
    lines = out.splitlines()
    assert max(map(len, lines)) <= 80
    slowest = next(line for line in lines if line.startswith("100 Mbit/s"))
    assert slowest.split()[2:] == ["-"] * 6
    assert "10 % less/more at " in out
    assert "change the total time by: bandwidth +" in out.replace("\n", " ")


@pytest.mark.parametrize("width", [40, 60, 100])
def test_a_cell_is_one_line_whatever_the_terminal(
    busy: str, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    out = sweep(busy, "--bandwidth", "2500Mbit", "--private-rate", "20000pps").stdout
    table = out.split("\n\n", 1)[1].rsplit("\n\n", 1)[0].splitlines()
    assert max(map(len, table)) <= width
    starts = {line[:10].strip() for line in table}
    assert starts == {"bandwidth", "2.5 Gbit/s", ""}
    assert {it[0] for line in table if not line[:10].strip() for it in line.split()[::2]} == {"/"}


def test_what_changes_nothing_has_no_sign() -> None:
    grid = make_grid(guest(GIB_PAGES, 0, [(1000, 0, 0)]), [1e9], [300.0], Parameters())
    assert sensitivity_line(grid).endswith(", downtime limit 0 %, guest's writes 0 %.")


def test_lists_may_be_given_several_times_and_with_commas(busy: str) -> None:
    result = sweep(
        busy, "--bandwidth", "10Gbit,1GB/s", "--bandwidth", "1GB/s", "--downtime-limit", "1s",
        "--downtime-limit", "300ms", "--private-rate", "1000000pps", "--json",
    )  # fmt: skip
    grid = json.loads(result.stdout)
    assert grid["bandwidths_bytes_per_s"] == [1e9, 1.25e9]
    assert grid["downtime_limits_ms"] == [300, 1000]


def test_many_downtime_limits_are_printed_in_parts(busy: str) -> None:
    limits = ",".join(f"{ms}ms" for ms in range(100, 1000, 100))
    out = sweep(busy, "--bandwidth", "25Gbit", "--downtime-limit", limits).stdout
    assert max(map(len, out.splitlines())) <= 80
    assert out.count("bandwidth ") >= 2
    assert "900 ms" in out


def test_csv_holds_what_json_holds(busy: str) -> None:
    options = [busy, "--private-rate", "20000pps"]
    cells = json.loads(sweep(*options, "--json").stdout)["cells"]
    rows = list(csv.DictReader(io.StringIO(sweep(*options, "--csv").stdout)))
    assert len(rows) == len(cells) == 48
    for row, cell in zip(rows, cells, strict=True):
        assert row.keys() == cell.keys()
        assert float(row["max_bandwidth_bytes_per_s"]) == cell["max_bandwidth_bytes_per_s"]
        assert row["verdict"] == cell["verdict"]
        total = cell["total_time_ms"]
        assert row["total_time_ms"] == ("" if total is None else f"{total:.3f}")


def test_the_picture_is_sound_xml_with_a_number_in_each_cell(busy: str, tmp_path: Path) -> None:
    path = tmp_path / "grid.svg"
    grid = json.loads(sweep(busy, "--svg", str(path), "--json").stdout)
    assert not faults(grid)
    root = ET.parse(path).getroot()
    cells = root.findall(f"{SVG}rect")[1:]
    assert len(cells) == 48
    texts = [text.text for text in root.findall(f"{SVG}text")]
    dashes = sum(cell["total_time_ms"] is None for cell in grid["cells"])
    assert texts.count("-") == dashes > 0
    assert {"125 ms", "40 Gbit/s", "bandwidth", "downtime limit"} <= set(texts)
    assert sum(cell.get("fill") == "url(#never)" for cell in cells) == dashes
    assert any('a <busy> & "odd" guest; 8 GiB, 12.5 % private.' in str(text) for text in texts)


@pytest.mark.parametrize(
    "options",
    [
        ("--bandwidth", "1Gbit", "--downtime-limit", "300ms"),
        ("--qemu", "11", "--auto-converge", "--private-batch", "4094", "--time-limit", "1h"),
        ("--downtime-limit", ",".join(f"{ms}ms" for ms in range(50, 1000, 50))),
    ],
)
def test_nothing_in_the_picture_is_cut(busy: str, tmp_path: Path, options: tuple[str, ...]) -> None:
    """By the widest letters that are likely: 0.6 of their height."""
    path = tmp_path / "grid.svg"
    sweep(busy, "--private-rate", "20000pps", "--svg", str(path), *options)
    root = ET.parse(path).getroot()
    width, height = float(root.get("width", 0)), float(root.get("height", 0))
    for text in root.iter(f"{SVG}text"):
        long = len(text.text or "") * float(text.get("font-size", 0)) * 0.6
        before = {"start": 0.0, "middle": 0.5, "end": 1.0}[text.get("text-anchor", "")]
        left = float(text.get("x", 0)) - before * long
        assert left >= 0, text.text
        assert left + long <= width, text.text
        assert 0 < float(text.get("y", 0)) < height


def test_a_line_in_the_picture_parts_what_converges_from_what_does_not(
    busy: str, tmp_path: Path
) -> None:
    path = tmp_path / "grid.svg"
    options = ["--bandwidth", "100Mbit,40Gbit", "--downtime-limit", "125ms,5s"]
    sweep(busy, "--private-rate", "20000pps", "--svg", str(path), *options)
    (edge,) = ET.parse(path).getroot().findall(f"{SVG}path")
    # Below both cells of the upper row, which do not converge.
    assert edge.get("d", "").count("h92") == 2
    assert "v" not in edge.get("d", "")


def test_what_is_the_same_in_all_cells_is_said(busy: str) -> None:
    out = sweep(busy, "--qemu", "8.2", "--private-rate", "20000pps", "--multifd", "4").stdout
    assert "rules of qemu-8.2 (UNPROVEN), firmware 20000 pages/s, multifd of 4." in out
    assert "(UNPROVEN)" not in sweep(busy, "--qemu", "7.2").stdout


def test_where_no_cell_converges_it_is_exit_status_1(tmp_path: Path) -> None:
    path = tmp_path / "no.capture"
    save_capture(AMD_STORY, path)
    result = sweep(str(path), "--downtime-limit", "125ms", "--svg", str(tmp_path / "no.svg"))
    assert result.exit_code == 1
    assert "No cell converges." in result.stdout


@pytest.mark.parametrize(
    ("options", "status", "complaint"),
    [
        (["--bandwidth", "1Gb"], 2, "bits or bytes? write 1Gbit or 1GB/s"),
        (["--bandwidth", "1Gbit,,2Gbit"], 2, "is not a bandwidth"),
        (["--downtime-limit", "300"], 2, "write it like 300ms"),
        (["--downtime-limit", "1h"], 4, "QEMU allows at most 2000 s"),
        (["--csv", "--json"], 2, "only one of them fits"),
        (["--svg", "/no/such/place.svg"], 4, "/no/such/place.svg: there is no folder /no/such"),
    ],
)
def test_bad_input_is_one_clear_line(
    busy: str, options: list[str], status: int, complaint: str
) -> None:
    result = sweep(busy, *options)
    assert result.exit_code == status
    assert complaint in result.stderr
    assert result.stdout == ""


def test_a_bad_file_is_exit_status_4(tmp_path: Path) -> None:
    result = sweep(str(tmp_path / "absent"))
    assert result.exit_code == 4
    assert result.stderr.count("\n") == 1


def test_48_cells_take_less_than_a_second_of_one_core(busy: str) -> None:
    start = time.process_time()
    sweep(busy, "--private-rate", "20000pps", "--json")
    assert time.process_time() - start < 1
