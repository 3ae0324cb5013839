from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from kvmenc import cli
from kvmenc.capture import save_capture
from tests.cli.test_root import MAIN, here, kvmenc
from tests.plan.guests import GIB_PAGES, guest
from tests.plan.test_precopy import AMD_STORY
from tests.schemas.validator import faults


@pytest.fixture(scope="module")
def converging(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("captures") / "yes.capture"
    save_capture(guest(GIB_PAGES // 4, 100, [(100, 5, 500), (1000, 10, 900)]), path)
    return str(path)


@pytest.fixture(scope="module")
def hopeless(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("captures") / "no.capture"
    save_capture(AMD_STORY, path)
    return str(path)


def test_the_contract_line_of_the_command(converging: str) -> None:
    result = kvmenc(
        "plan", converging, "--max-bandwidth", "1GB/s", "--link", "10Gbit",
        "--downtime-limit", "300ms", "--time-limit", "10min", "--private-rate", "400pps", "--json",
    )  # fmt: skip
    assert (result.returncode, result.stderr) == (0, "")
    plan = json.loads(result.stdout)
    assert plan["schema"] == "kvmenc.plan/1"
    assert plan["verdict"] == "converges"
    assert not faults(plan)
    assert plan["inputs"] == {
        "max_bandwidth_bytes_per_s": 1e9,
        "link_bytes_per_s": 1.25e9,
        "downtime_limit_ms": 300,
        "time_limit_ms": 600_000,
        "private_rate_pps": 400,
        "private_batch_pages": 1,
        "send_buffer_bytes": 0,
        "auto_converge": False,
        "multifd_channels": 0,
        "xbzrle_encoded_share": None,
        "xbzrle_cache_bytes": None,
        "postcopy": False,
    }


def test_capabilities_and_rules_are_options(converging: str) -> None:
    result = here(
        "plan", converging, "--auto-converge", "--xbzrle", "25", "--xbzrle-cache", "128MiB",
        "--qemu", "8.2", "--send-buffer", "2MiB", "--private-batch", "4094", "--json",
    )  # fmt: skip
    assert (result.returncode, result.stderr) == (0, "")
    plan = json.loads(result.stdout)
    assert (plan["profile"], plan["proven"]) == ("qemu-8.2", False)
    assert plan["inputs"]["auto_converge"]
    assert plan["inputs"]["xbzrle_encoded_share"] == 0.25
    assert plan["inputs"]["xbzrle_cache_bytes"] == 128 * 2**20
    assert plan["inputs"]["send_buffer_bytes"] == 2 * 2**20
    assert plan["inputs"]["private_batch_pages"] == 4094


def test_a_guest_can_be_described_instead_of_captured() -> None:
    described = [
        "--memory", "8GiB", "--zero", "50%", "--private", "10%",
        "--dirty-rate", "50MB/s", "--working-set", "1GiB",
    ]  # fmt: skip
    result = here("plan", *described, "--link", "10Gbit", "--private-rate", "50000pps", "--json")
    assert result.stderr == ""
    guest = json.loads(result.stdout)["guest"]
    assert guest["pages"] == 2**21
    assert guest["private_pages"] == round(2**21 / 10)


def test_a_description_needs_memory_and_goes_alone(converging: str) -> None:
    without = here("plan", "--zero", "50%")
    assert without.returncode == 2
    assert "a guest is described by its --memory first" in without.stderr
    both = here("plan", converging, "--memory", "1GiB")
    assert both.returncode == 2
    assert "goes without FILE" in both.stderr
    share = here("plan", "--memory", "1GiB", "--zero", "150%")
    assert share.returncode == 2


@pytest.mark.parametrize(
    ("options", "status", "text"),
    [
        (["--qemu", "6.1"], 4, "no rules of QEMU '6.1': there are 7.2, 8.2, 10.0, 10.2, 11"),
        (["--xbzrle-cache", "1GiB"], 2, "--xbzrle-cache goes with --xbzrle"),
        (["--xbzrle", "0"], 2, "0 is not in the range"),
        (["--xbzrle", "50", "--multifd", "2"], 4, "QEMU does not take both"),
        (["--multifd", "0"], 2, "0 is not in the range"),
    ],
)
def test_what_makes_no_sense_is_refused(
    converging: str, options: list[str], status: int, text: str
) -> None:
    result = here("plan", converging, *options)
    assert result.returncode == status
    assert text in result.stderr


def test_without_options_the_defaults_are_those_of_qemu(converging: str) -> None:
    result = CliRunner().invoke(cli.root, ["plan", converging, "--json"])
    inputs = json.loads(result.stdout)["inputs"]
    assert inputs["max_bandwidth_bytes_per_s"] == inputs["link_bytes_per_s"] == 128 * 2**20
    assert inputs["downtime_limit_ms"] == 300
    assert inputs["time_limit_ms"] is None


@pytest.mark.parametrize("json_option", [[], ["--json"]])
def test_a_verdict_of_no_is_exit_status_1(hopeless: str, json_option: list[str]) -> None:
    result = here("plan", hopeless, *json_option)
    assert (result.returncode, result.stderr) == (1, "")
    assert "does-not-converge" in result.stdout or "Does not converge" in result.stdout
    assert not json_option or not faults(json.loads(result.stdout))


def test_a_bad_file_is_exit_status_4_and_one_line(tmp_path: Path) -> None:
    bad = tmp_path / "bad.capture"
    bad.write_text("{}")
    for file, why in ((bad, "not a usable capture"), (tmp_path / "absent", "No such file")):
        result = here("plan", str(file), "--json")
        assert (result.returncode, result.stdout) == (4, "")
        assert result.stderr.startswith(f"kvmenc: {file}: ")
        assert result.stderr.count("\n") == 1
        assert why in result.stderr


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--private-rate", "0pps"], "must be more than 0"),
        (["--max-bandwidth", "1Gb"], "bits or bytes? write 1Gbit or 1GB/s"),
        (["--downtime-limit", "300"], "write it like 300ms"),
        (["--time-limit", "10m"], "minutes or milliseconds?"),
        (["--link", "-1GB/s"], "must be more than 0"),
        (["--no-such"], "No such option"),
    ],
)
def test_a_bad_option_is_exit_status_2(converging: str, options: list[str], complaint: str) -> None:
    result = CliRunner().invoke(cli.root, ["plan", converging, *options])
    assert result.exit_code == 2
    assert complaint in result.stderr
    assert result.stdout == ""


def test_without_a_file_a_scratch_guest_is_run_and_watched() -> None:
    result = CliRunner().invoke(cli.root, ["plan", "--backend", "fake", "--json"])
    assert result.exit_code == 1
    plan = json.loads(result.stdout)
    assert plan["guest"]["source"] == "scratch guest on fakekvm"
    assert plan["verdict"] == "does-not-converge"


def test_a_file_with_a_backend_is_exit_status_2(converging: str) -> None:
    result = CliRunner().invoke(cli.root, ["plan", converging, "--backend", "fake"])
    assert result.exit_code == 2
    assert "--backend goes without one" in result.stderr


def test_output_into_a_pipe_is_80_columns_without_colour(converging: str) -> None:
    result = kvmenc("plan", converging)
    assert "\x1b" not in result.stdout
    assert max(len(line) for line in result.stdout.splitlines()) <= 80


def on_a_terminal(*args: str, **env: str) -> str:
    """What the command prints on a pseudo-terminal of 80 columns."""
    master, slave = os.openpty()
    clean = {k: v for k, v in os.environ.items() if k not in {"NO_COLOR", "FORCE_COLOR"}}
    clean |= {"TERM": "xterm", "COLUMNS": "80"} | env
    with subprocess.Popen([*MAIN, *args], stdout=slave, env=clean) as process:
        os.close(slave)
        seen = b""
        # Reading a terminal whose other side is closed fails with EIO.
        try:
            while chunk := os.read(master, 65536):
                seen += chunk
        except OSError:
            process.wait()
    os.close(master)
    return seen.decode()


def test_colour_is_for_terminals_and_no_color_turns_it_off(converging: str) -> None:
    assert "\x1b[1;32mConverges" in on_a_terminal("plan", converging)
    assert "\x1b[1;32m" not in on_a_terminal("plan", converging, NO_COLOR="1")


def test_a_dash_is_stdin(converging: str) -> None:
    show, capture = [*MAIN, "show", "-"], Path(converging)
    with capture.open("rb") as file:
        shown = subprocess.run(show, stdin=file, capture_output=True, check=True)
    data = capture.read_bytes()
    piped = subprocess.run(show, input=data, capture_output=True, check=False)
    assert shown.stdout.startswith(b"Capture of ")
    complaint = b"cannot be read: it is a pipe, and a capture is read from its end: save it first"
    assert (piped.returncode, piped.stderr) == (4, b"kvmenc: /dev/stdin: %b\n" % complaint)


@pytest.mark.parametrize(
    "words", ["plan {file}", "plan {file} --json", "plan --help", "--help", "--version"]
)
def test_a_reader_that_goes_away_is_no_traceback(converging: str, words: str) -> None:
    with subprocess.Popen(
        [*MAIN, *words.format(file=converging).split()],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


def test_the_examples_of_the_help_run(
    converging: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "guest.capture").write_bytes(Path(converging).read_bytes())
    text = CliRunner().invoke(cli.root, ["plan", "--help"]).stdout
    examples = [line.split("|")[0].split() for line in text.splitlines() if "kvmenc plan g" in line]
    assert 2 <= len(examples) <= 4
    for example in examples:
        assert CliRunner().invoke(cli.root, example[1:]).exit_code == 0
