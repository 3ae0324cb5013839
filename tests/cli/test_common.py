from __future__ import annotations

import itertools
import json
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING

import click
import msgspec
import pytest
from click.testing import CliRunner

from kvmenc.cli import common

if TYPE_CHECKING:
    from pathlib import Path


class Answer(msgspec.Struct):
    schema: str
    number: int


def test_json_is_one_object_that_begins_with_schema_and_version(
    capsys: pytest.CaptureFixture[str],
) -> None:
    common.emit_json(Answer("kvmenc.test/1", 7))
    answer = json.loads(capsys.readouterr().out)
    assert list(answer) == ["schema", "kvmenc_version", "number"]
    assert answer["schema"] == "kvmenc.test/1"
    assert answer["kvmenc_version"] == common.package_version()


@pytest.mark.parametrize(
    ("unit", "text", "value"),
    [(common.BANDWIDTH, "10Gbit", 1.25e9), (common.TIME, "2s", 2e3), (common.PAGE_RATE, "4pps", 4)],
)
def test_units_are_read_from_the_command_line(unit: common.Unit, text: str, value: float) -> None:
    @click.command
    @click.option("--x", type=unit)
    def command(x: float) -> None:
        click.echo(x)

    assert float(CliRunner().invoke(command, ["--x", text]).stdout) == value


def test_a_bad_unit_is_a_usage_error_with_the_advice() -> None:
    @click.command
    @click.option("--x", type=common.BANDWIDTH)
    def command(x: float) -> None:
        click.echo(x)

    result = CliRunner().invoke(command, ["--x", "1Gb"])
    assert result.exit_code == 2
    assert "Invalid value for '--x': '1Gb' does not say in what unit" in result.stderr


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (common.Seconds(1, 100), "10", 10.0),
        (common.Seconds(1, 100), "10s", 10.0),
        (common.Seconds(1, 100), "1.5min", 90.0),
        (common.Percent(0, 100), "50", 50.0),
        (common.Percent(0, 100), "50%", 50.0),
        (common.Seconds(1, 100), "2min", "120.0 is not in the range 1<=x<=100"),
        (common.Seconds(1, 100), "10m", "minutes or milliseconds"),
        (common.Seconds(1, 100), "nan", "'nan' is not a time: write it like 300ms, 2s or 10min"),
        (common.Percent(0, 100), "half", "'half' is not a valid percentage"),
        (common.Whole(1, 9), "2.5", "'2.5' is not a valid integer."),
    ],
)
def test_numbers_are_read_with_their_unit_or_without(
    kind: common.Seconds | common.Percent | common.Whole, text: str, value: float | str
) -> None:
    @click.command
    @click.option("--x", type=kind)
    def command(x: float) -> None:
        click.echo(x)

    result = CliRunner().invoke(command, ["--x", text])
    if isinstance(value, float):
        assert float(result.stdout) == value
    else:
        assert (result.exit_code, result.stdout) == (2, "")
        assert value in result.stderr


def test_progress_is_silent_where_stderr_is_no_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ten_seconds_a_look = SimpleNamespace(monotonic=itertools.count(0, 10).__next__)
    monkeypatch.setattr(common, "time", ten_seconds_a_look)
    with common.progress("Counting", total=2) as update:
        update(1)
        update(2)
    assert capsys.readouterr() == ("", "")


def shown_on_a_terminal(monkeypatch: pytest.MonkeyPatch, file: Path, seconds: int) -> str:
    """What a terminal sees of a job that takes ``seconds``."""
    clock = [0.0]
    monkeypatch.setattr(common, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    with file.open("w") as stream:
        from kvmenc.report.terminal import Terminal  # noqa: PLC0415

        terminal = Terminal(file=stream, force_terminal=True, width=80)
        monkeypatch.setattr(common, "console", lambda *, stderr: terminal if stderr else None)
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setattr(sys, "stderr", SimpleNamespace(isatty=lambda: True))
        with common.progress("Counting", total=2) as update:
            clock[0] = seconds
            update(1)
    return file.read_text()


def test_progress_shows_on_a_terminal_after_a_second(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert "Counting" in shown_on_a_terminal(monkeypatch, tmp_path / "screen", seconds=2)


def test_progress_does_not_flash_up_for_a_short_job(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert shown_on_a_terminal(monkeypatch, tmp_path / "screen", seconds=0) == ""
