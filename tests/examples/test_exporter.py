"""``examples/exporter.py``: what Prometheus reads of a capture."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from typing import TYPE_CHECKING

import msgspec
import pytest

from kvmenc.capture import Provenance, save_capture
from kvmenc.plan import Parameters, make_plan, profile_for
from tests.examples.test_examples import EXAMPLES
from tests.plan.guests import GIB_PAGES, guest

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("prometheus_client") is None, reason="no prometheus-client is here"
)


def export(*args: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, EXAMPLES / "exporter.py", *args],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def read(path: Path) -> dict[tuple[str, ...], float]:
    """Value by name and labels, but for the guest's; each metric has a help and a type."""
    from prometheus_client.parser import text_string_to_metric_families  # noqa: PLC0415

    found = {}
    for family in text_string_to_metric_families(path.read_text()):
        assert family.type == "gauge"
        assert family.documentation.endswith(".")
        for sample in family.samples:
            assert sample.labels.pop("guest") == 'odd "name"'
            found[sample.name, *sample.labels.values()] = sample.value
    return found


def test_a_capture_is_exported(tmp_path: Path) -> None:
    file, out = tmp_path / "a.capture", tmp_path / "a.prom"
    save_capture(guest(GIB_PAGES, 1000, [(200, 30, 50), (2_000, 210, 410)], zero=0), file)
    out.write_text("the old file")
    run = export("--capture", file, "--guest", 'odd "name"', "-o", out)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
    assert [it.name for it in tmp_path.iterdir() if it.suffix == ".part"] == []
    values = read(out)
    assert values["kvmenc_guest_pages", "pc.ram", "private"] == 1000
    assert values["kvmenc_guest_pages", "pc.ram", "shared"] == GIB_PAGES - 1000
    written = {key[1:]: it for key, it in values.items() if key[0] == "kvmenc_guest_written_pages"}
    # Straight lines between the points; nothing past the last one.
    assert written == {
        ("private", "0.1"): 15, ("shared", "0.1"): 25,
        ("private", "0.3"): 40, ("shared", "0.3"): 70,
        ("private", "1"): 110, ("shared", "1"): 210,
    }  # fmt: skip
    assert values["kvmenc_migration_converges",] in {0, 1}
    assert values["kvmenc_capture_timestamp_seconds",] > 1.7e9


def test_a_bad_capture_leaves_the_old_file(tmp_path: Path) -> None:
    bad, out = tmp_path / "bad.capture", tmp_path / "a.prom"
    bad.write_text("{}")
    out.write_text("the old file")
    run = export("--capture", bad, "-o", out)
    assert run.returncode == 4
    assert run.stderr.startswith(f"exporter: {bad}: not a usable capture")
    assert out.read_text() == "the old file"


def test_it_plans_as_kvmenc_does(tmp_path: Path) -> None:
    """By the rules of the QEMU that was captured."""
    file, out = tmp_path / "a.capture", tmp_path / "a.prom"
    made = Provenance(
        captured_at="2026-11-23T18:00:00Z", kvmenc_version="0.1.0", how="peek", qemu="7.2.22"
    )
    facts = guest(GIB_PAGES, 0, [(100, 0, 30_000), (1_000, 0, 200_000)], zero=0)
    facts = msgspec.structs.replace(facts, provenance=made)
    save_capture(facts, file)
    run = export(
        "--capture", file, "--guest", 'odd "name"', "--private-rate", "20000pps", "-o", out
    )
    assert (run.returncode, run.stderr) == (0, "")
    parameters = Parameters(1.25e9)
    ms = make_plan(facts, parameters, profile_for("7.2")).total_time_ms
    assert ms is not None
    assert ms != make_plan(facts, parameters).total_time_ms
    assert read(out)["kvmenc_migration_seconds",] == ms / 1000


def test_a_wrong_unit_is_one_line(tmp_path: Path) -> None:
    run = export("--capture", "a.capture", "-o", tmp_path / "a.prom", "--max-bandwidth", "1Gb")
    assert run.returncode == 4
    assert len(run.stderr.splitlines()) == 1
    assert "write 1Gbit or 1GB/s" in run.stderr
