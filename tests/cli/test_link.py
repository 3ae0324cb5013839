"""``kvmenc link`` and ``kvmenc plan --to``: output, exit codes."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from kvmenc.capture import save_capture
from kvmenc.cli import root
from kvmenc.link.assemble import assemble
from kvmenc.link.look import observe
from kvmenc.link.resolve import Destination
from tests.cli.test_root import MAIN
from tests.link.lab import HERE, THERE, Lab, laboratory
from tests.link.recorded import RecordedKernel, link, route
from tests.plan.guests import GIB_PAGES, guest
from tests.schemas.validator import faults

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from kvmenc.link import Link

GOODPUT = 1.25e9 * 1448 / 1542


@pytest.fixture
def lab() -> Iterator[Lab]:
    with laboratory() as made:
        made.tc("qdisc", "add", "dev", "v0", "root", "tbf", "rate", "100mbit", "burst", "64kb",
                "latency", "50ms")  # fmt: skip
        yield made


@pytest.fixture
def capture(tmp_path: Path) -> str:
    path = tmp_path / "guest.capture"
    save_capture(guest(GIB_PAGES // 4, 100, [(100, 5, 500), (1000, 10, 900)]), path)
    return str(path)


def found(*, speed: int | None = 10_000, local: bool = False, sent: int = 0) -> Link:
    """A VLAN on an interface of 10 Gbit/s that sends so many bytes while it is looked at."""
    vlan = link(3, "eth0.42", kind="vlan", data={"IFLA_VLAN_ID": 42}, link=2)
    chosen = {**route(3, gateway="192.0.2.1"), "type": 2 if local else 1}
    kernel = RecordedKernel(
        link(2, "eth0") + vlan,
        chosen,
        later=link(2, "eth0", sent=(sent, 0)) + vlan,
        speeds={"eth0": speed} if speed else {},
    )
    to = Destination("192.0.2.7")
    return assemble("host2", None, to, observe(kernel, to, 0))


def pretend(monkeypatch: pytest.MonkeyPatch, link: Link) -> None:
    monkeypatch.setattr("kvmenc.link.look", lambda *_: link)


def test_the_json_has_its_schema_and_the_number(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, found())
    run = CliRunner().invoke(root, ["link", "--to", "host2", "--json"])
    assert (run.exit_code, run.stderr) == (0, "")
    answer = json.loads(run.stdout)
    assert answer["schema"] == "kvmenc.link/1"
    assert not faults(answer)
    assert answer["goodput_bytes_per_s"] == pytest.approx(GOODPUT)
    assert [it["name"] for it in answer["devices"]] == ["eth0.42", "eth0"]


def test_the_text_has_the_number_first_and_fits_80_columns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pretend(monkeypatch, found())
    run = CliRunner().invoke(root, ["link", "--to", "host2"])
    lines = run.stdout.splitlines()
    assert lines[0] == "To host2 (192.0.2.7): at most 1.17 GB/s (9.39 Gbit/s)"
    assert lines[1] == "for one TCP connection; tightest: speed of eth0."
    assert max(map(len, lines)) <= 80
    assert "below eth0.42" in run.stdout


@pytest.mark.parametrize(
    ("link", "first_line"),
    [
        (found(speed=None), "To host2 (192.0.2.7): no limit is known, so there is no estimate."),
        (found(local=True), "host2 (192.0.2.7) is this machine."),
    ],
)
def test_what_is_not_known_is_said_and_is_no_error(
    monkeypatch: pytest.MonkeyPatch, link: Link, first_line: str
) -> None:
    pretend(monkeypatch, link)
    run = CliRunner().invoke(root, ["link", "--to", "host2"])
    assert run.exit_code == 0
    assert run.stdout.splitlines()[0] == first_line
    as_json = CliRunner().invoke(root, ["link", "--to", "host2", "--json"])
    assert json.loads(as_json.stdout)["goodput_bytes_per_s"] is None


@pytest.mark.parametrize(
    ("arguments", "status", "complaint"),
    [
        (["--to", "a b"], 4, "'a b' is not a host"),
        (["--to", "192.0.2.1:4444"], 4, "without port"),
        (["--to", "192.0.2.1", "--netns", "no-such"], 4, "no network namespace 'no-such'"),
        ([], 2, "Missing option '--to'"),
    ],
)
def test_bad_input_is_one_line_and_its_exit_code(
    arguments: list[str], status: int, complaint: str
) -> None:
    run = CliRunner().invoke(root, ["link", *arguments, "--json"])
    assert run.exit_code == status
    assert complaint in run.stderr
    assert run.stdout == ""


def test_a_host_without_a_route_is_exit_status_3(lab: Lab) -> None:
    run = CliRunner().invoke(root, ["link", "--to", "203.0.113.1", "--netns", lab.near])
    assert (run.exit_code, run.stdout) == (3, "")
    assert run.stderr == "kvmenc: 203.0.113.1 cannot be reached from here: no route\n"


def test_the_real_command_looks_into_a_namespace(lab: Lab) -> None:
    run = CliRunner().invoke(root, ["link", "--to", THERE, "--netns", lab.near])
    assert run.exit_code == 0
    assert run.stdout.startswith(f"To {THERE}: at most ")
    assert f"from {HERE}, MTU 1500 on the way, in namespace {lab.near}" in " ".join(
        run.stdout.split()
    )
    assert max(map(len, run.stdout.splitlines())) <= 80


def test_a_plan_takes_the_goodput_for_the_link_and_says_so(
    monkeypatch: pytest.MonkeyPatch, capture: str
) -> None:
    pretend(monkeypatch, found())
    run = CliRunner().invoke(root, ["plan", capture, "--to", "host2", "--json"])
    assert (run.exit_code, run.stderr) == (0, "")
    plan = json.loads(run.stdout)
    assert plan["inputs"]["link_bytes_per_s"] == pytest.approx(GOODPUT)
    assert plan["assumptions"][-1] == (
        "The link: 1.17 GB/s after headers, what one TCP connection to 192.0.2.7 gets at most "
        "(speed of eth0)."
    )


def test_a_report_takes_it_too(
    monkeypatch: pytest.MonkeyPatch, capture: str, tmp_path: Path
) -> None:
    pretend(monkeypatch, found())
    out = tmp_path / "a.html"
    run = CliRunner().invoke(root, ["report", capture, "-o", str(out), "--to", "host2"])
    assert run.exit_code == 0
    assert b"what one TCP connection to 192.0.2.7 gets at most" in out.read_bytes()


def test_a_plan_inside_a_namespace_looks_from_there(lab: Lab, capture: str) -> None:
    command = ["ip", "netns", "exec", lab.near, *MAIN, "plan", capture, "--to", THERE, "--json"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    link_bytes_per_s = json.loads(run.stdout)["inputs"]["link_bytes_per_s"]
    assert link_bytes_per_s == pytest.approx(12.5e6 * 1448 / 1514, rel=0.01)


@pytest.mark.parametrize(
    ("link", "status", "complaint"),
    [
        (found(speed=None), 3, "host2: no limit is known: see `kvmenc link --to host2`"),
        (found(sent=10**12), 3, "host2: speed of eth0 is in full use: "),
        (found(local=True), 4, "host2 is this machine: no link to look at; give --link"),
    ],
)
def test_a_plan_is_not_made_with_an_unknown_link(
    monkeypatch: pytest.MonkeyPatch, capture: str, link: Link, status: int, complaint: str
) -> None:
    pretend(monkeypatch, link)
    run = CliRunner().invoke(root, ["plan", capture, "--to", "host2"])
    assert (run.exit_code, run.stdout) == (status, "")
    assert run.stderr.startswith(f"kvmenc: {complaint}")
    assert run.stderr.count("\n") == 1


def test_a_link_given_twice_is_a_usage_error(capture: str) -> None:
    run = CliRunner().invoke(root, ["plan", capture, "--to", "192.0.2.1", "--link", "1GB/s"])
    assert run.exit_code == 2
    assert "--to finds out what --link says: give one of them" in run.stderr
