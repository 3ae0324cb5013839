"""``kvmenc probe --measure-firmware``: output, exit codes, Ctrl-C."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from fakekvm import Host
from fakekvm.exportcerts import export
from kvmenc.backend.fake import FakeBackend
from kvmenc.cli import root
from kvmenc.units import parse_page_rate_pps

MEASURE = ("probe", "--measure-firmware", "--backend", "fake")
OPTIONS = ("--pdh", "--plat-cert", "--amd-cert")


def kvmenc(*arguments: str) -> Result:
    return CliRunner().invoke(root, arguments)


def given(files: list[Path]) -> list[str]:
    pairs = zip(OPTIONS, map(str, files), strict=True)
    return [word for pair in pairs for word in pair]


def test_a_measurement_as_json(tmp_path: Path) -> None:
    run = kvmenc(*MEASURE, "--seconds", "0.5", "--json", *given(export(tmp_path)))
    assert run.exit_code == 0, run.output
    found = json.loads(run.stdout)
    assert found["schema"] == "kvmenc.firmware/1"
    assert 10 < found["send"]["pages_per_s"] < 404  # as much less as the machine is busy
    assert found["private_rate_pps"] <= found["send"]["pages_per_s"]
    assert found["header_bytes"] + found["contents_bytes"] == 4148
    assert found["contents"]["equal"] is True


def test_a_measurement_as_text_says_what_to_type() -> None:
    run = kvmenc(*MEASURE, "--seconds", "0.5")
    assert run.exit_code == 0, run.output
    assert max(map(len, run.stdout.splitlines())) <= 80
    typed = next(line for line in run.stdout.splitlines() if "--private-rate" in line)
    rate = typed.split()[-1]
    assert 10 < float(rate.removesuffix("pps")) < 404
    for words in ("RECEIVE", "= 4148 bytes", "all as sent", "other SEV guests here: 0"):
        assert words in " ".join(run.stdout.split())
    assert parse_page_rate_pps(rate) > 0, "as `kvmenc plan` reads it"


@pytest.mark.parametrize(
    "arguments",
    [
        (*MEASURE, "--pdh", "x"),
        (*MEASURE, "--self-test"),
        (*MEASURE, "--seconds", "0"),
        (*MEASURE, "--seconds", "soon"),
        ("probe", "--seconds", "3"),
        ("probe", "--pdh", "x"),
    ],
)
def test_options_that_do_not_go_together_are_usage(arguments: tuple[str, ...]) -> None:
    assert kvmenc(*arguments).exit_code == 2


def test_missing_options_are_named() -> None:
    run = kvmenc(*MEASURE, "--plat-cert", "x")
    assert run.exit_code == 2
    assert "--measure-firmware needs --pdh, --amd-cert too" in run.stderr


def test_bad_files_are_one_line_and_exit_code_4(tmp_path: Path) -> None:
    files = export(tmp_path)
    for bad, says in (
        ([tmp_path / "absent", *files[1:]], "--pdh"),
        ([files[0], files[0], files[2]], "SEV_RET_INVALID_CERTIFICATE"),
        ([files[1], files[1], files[2]], "SEV_RET_INVALID_CERTIFICATE"),
    ):
        run = kvmenc(*MEASURE, "--seconds", "0.2", *given(bad))
        assert run.exit_code == 4
        assert run.stdout == ""
        assert run.stderr.startswith("kvmenc: --pdh")
        assert says in run.stderr
        assert run.stderr.count("\n") == 1


def test_a_host_without_sev_is_one_line_and_exit_code_3(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kvmenc.probe.firmware.open_sev_backend", lambda _: FakeBackend(Host()))
    run = kvmenc(*MEASURE)
    assert run.exit_code == 3
    assert run.stderr.startswith("kvmenc: KVM has no SEV on this host: ")
    assert run.stderr.count("\n") == 1


def test_a_page_that_arrived_changed_is_exit_code_1(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kvmenc.probe.pair.Pair._is_equal", lambda _self, _page: False)
    run = kvmenc(*MEASURE, "--seconds", "0.2")
    assert run.exit_code == 1
    assert "NOT as sent" in " ".join(run.stdout.split())


def test_ctrl_c_is_130_and_one_line() -> None:
    code = "from kvmenc.cli import main; main()"
    command = [sys.executable, "-c", code, *MEASURE, "--seconds", "60"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        _wait_for_guests(process.pid)
        process.send_signal(signal.SIGINT)
        out, error = process.communicate(timeout=20)
    assert (process.returncode, out, error) == (130, b"", b"kvmenc: interrupted\n")


def _wait_for_guests(pid: int) -> None:
    """Until it has descriptors of /dev/kvm, /dev/sev and two VMs, which are eventfds in a fake."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with suppress(FileNotFoundError):  # one that was closed meanwhile
            names = [str(path.readlink()) for path in Path(f"/proc/{pid}/fd").iterdir()]
            if sum("eventfd" in name for name in names) >= 4:
                time.sleep(0.3)
                return
        time.sleep(0.05)
    pytest.fail("no measurement within a minute")
