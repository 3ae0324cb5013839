"""``kvmenc check-order`` as a user runs it."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from click.testing import CliRunner

from kvmenc import cli, ordering
from tests.cli.test_root import here, kvmenc
from tests.schemas.validator import faults

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

    Drawn = tuple[subprocess.CompletedProcess[str], Path]


@pytest.fixture(scope="module")
def quick(
    tmp_path_factory: pytest.TempPathFactory,
) -> Drawn:
    pictures = tmp_path_factory.mktemp("svg") / "new"
    return kvmenc("check-order", "--quick", "--timelines", "--svg", str(pictures)), pictures


def test_it_says_that_kvmenc_is_right_in_80_plain_columns(quick: Drawn) -> None:
    run, _ = quick
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.startswith(
        "kvmenc's sync: no run ends wrong where any host could be right.\n"
    )
    assert run.stdout.isascii()
    assert "\x1b" not in run.stdout
    assert max(map(len, run.stdout.splitlines())) <= 80


def test_each_shortest_wrong_run_is_told_and_drawn(quick: Drawn) -> None:
    run, pictures = quick
    drawn = sorted(pictures.glob("*.svg"))
    assert run.stdout.count("The guest should read v from the page") == len(drawn) > 50
    picture = pictures / "private-dirty-clear-by-get--flip-announce-write.svg"
    words = [it.text for it in ET.fromstring(picture.read_text()).iter() if it.text]
    assert "vCPU 0: announce" in words
    assert "encrypted road" in words
    assert any("reads d(s'(v)) at the destination" in it for it in words)
    for path in drawn:
        assert ET.fromstring(path.read_text()).tag == "{http://www.w3.org/2000/svg}svg"


@pytest.fixture(scope="module")
def small() -> ordering.OrderCheck:
    """What `--quick --rounds 1` finds."""
    return ordering.check(ordering.Bounds(1, ordering.QUICK.settings))


def test_json_holds_every_cell(monkeypatch: pytest.MonkeyPatch, small: ordering.OrderCheck) -> None:
    asked: list[ordering.Bounds] = []

    def check(bounds: ordering.Bounds, *_: object) -> ordering.OrderCheck:
        asked.append(bounds)
        return small

    monkeypatch.setattr(ordering, "check", check)
    run = here("check-order", "--quick", "--rounds", "1", "--json")
    assert asked == [ordering.Bounds(1, ordering.QUICK.settings)]
    answer: Any = json.loads(run.stdout)
    assert (run.returncode, answer["schema"], answer["live_rounds"]) == (
        0,
        "kvmenc.check-order/1",
        1,
    )
    assert not faults(answer)
    protocols, orders = len(answer["protocols"]), len(answer["orders"])
    assert len(answer["cells"]) == protocols * orders * len(answer["settings"])
    assert answer["wrong_by_own"] == 0
    assert answer["runs"] == sum(
        it["right"] + it["not_promised"] + it["no_host"] + it["wrong"] for it in answer["cells"]
    )


def test_a_wrong_sync_is_exit_status_1(
    monkeypatch: pytest.MonkeyPatch, small: ordering.OrderCheck
) -> None:
    wrong = msgspec.structs.replace(small, wrong_by_own=7)
    monkeypatch.setattr(ordering, "check", lambda *_: wrong)
    run = CliRunner().invoke(cli.root, ["check-order", "--quick"])
    assert run.exit_code == 1
    assert run.stdout.startswith("kvmenc's sync: 7 runs end wrong though a host could know.")


@pytest.mark.parametrize("rounds", ["0", "7", "many"])
def test_rounds_out_of_range_are_a_usage_error(rounds: str) -> None:
    assert here("check-order", "--rounds", rounds).returncode == 2


def test_pictures_that_cannot_be_written_are_exit_status_4(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    run = here("check-order", "--quick", "--rounds", "1", "--svg", str(tmp_path / "file"))
    assert run.returncode == 4
    assert run.stderr.startswith(f"kvmenc: {tmp_path}/file: no pictures can be written there: ")
