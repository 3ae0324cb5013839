from __future__ import annotations

import subprocess
import sys
import types
from typing import TYPE_CHECKING

import click
import pytest
from click.testing import CliRunner

from kvmenc import __main__ as program
from kvmenc import cli, errors

if TYPE_CHECKING:
    from collections.abc import Callable

MAIN = [sys.executable, "-c", "from kvmenc.cli import main; main()"]


def kvmenc(*args: str) -> subprocess.CompletedProcess[str]:
    """The real command, in a process of its own."""
    return subprocess.run([*MAIN, *args], capture_output=True, text=True, check=False)


def here(*args: str) -> subprocess.CompletedProcess[str]:
    """The same in this process: half a second less, where no process is what is tested."""
    run = CliRunner().invoke(cli.root, args, prog_name="kvmenc", catch_exceptions=False)
    return subprocess.CompletedProcess(args, run.exit_code, run.stdout, run.stderr)


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], None]:
    """Make ``kvmenc probe`` raise what is asked for."""

    def arrange(error: BaseException) -> None:
        @click.command
        def command() -> None:
            click.echo("half an answer")
            raise error

        module = types.ModuleType("kvmenc.cli.probe")
        module.__dict__["command"] = command
        monkeypatch.setitem(sys.modules, "kvmenc.cli.probe", module)

    return arrange


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.CheckFailed("the answer is no"), 1),
        (errors.NoKvm("/dev/kvm is absent: load the module"), 3),
        (errors.IoctlError("KVM_GET_DIRTY_LOG", 2, "slot=1", "no such slot"), 3),
        (errors.CaptureError("x.capture: not a usable capture"), 4),
    ],
)
def test_a_deliberate_error_is_one_line_and_its_exit_code(
    failing: Callable[[BaseException], None], error: errors.KvmencError, status: int
) -> None:
    failing(error)
    result = CliRunner().invoke(cli.root, ["probe"])
    assert result.exit_code == status
    assert result.stderr == f"kvmenc: {error}\n"
    assert result.stdout == "half an answer\n"


def test_ctrl_c_is_130_and_one_line(failing: Callable[[BaseException], None]) -> None:
    failing(KeyboardInterrupt())
    result = CliRunner().invoke(cli.root, ["probe"])
    assert result.exit_code == 130
    assert result.stderr == "kvmenc: interrupted\n"


def test_ctrl_c_while_commands_are_imported_is_the_same(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "main", interrupt)
    with pytest.raises(SystemExit) as caught:
        program.main()
    assert caught.value.code == 130
    assert capsys.readouterr() == ("", "kvmenc: interrupted\n")


def test_a_bug_is_neither_swallowed_nor_an_answer(
    failing: Callable[[BaseException], None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    failing(ZeroDivisionError("oops"))
    monkeypatch.setattr(sys, "argv", ["kvmenc", "probe"])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 70
    assert "ZeroDivisionError: oops" in capsys.readouterr().err


def test_a_command_that_is_not_there_is_a_usage_error() -> None:
    result = CliRunner().invoke(cli.root, ["no-such"])
    assert result.exit_code == 2
    assert result.stderr.endswith("No such command 'no-such'.\n")
    result = CliRunner().invoke(cli.root, ["Dryrun"])
    assert result.stderr.endswith("No such command 'Dryrun'. Did you mean dry-run?\n")


def test_a_module_missing_inside_a_command_is_not_taken_for_a_missing_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(_name: str) -> None:
        raise ModuleNotFoundError(name="numpy")

    monkeypatch.setattr(cli, "import_module", fail)
    result = CliRunner().invoke(cli.root, ["plan"])
    assert isinstance(result.exception, ModuleNotFoundError)


def test_help_lists_every_command_and_imports_none() -> None:
    code = (
        "import sys; from kvmenc.cli import root; root(['--help'], standalone_mode=False);"
        "print(sorted(m for m in sys.modules if m.startswith('kvmenc.cli.')));"
        "print({'numpy', 'rich', 'msgspec'} & set(sys.modules))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    *text, commands, libraries = result.stdout.splitlines()
    assert commands == "[]"
    assert libraries == "set()"
    for name, summary in cli.COMMANDS.items():
        assert any(line.split(maxsplit=1) == [name, summary] for line in text)


def test_help_fits_into_80_columns() -> None:
    for args in (["--help"], ["plan", "--help"]):
        result = CliRunner().invoke(cli.root, args)
        assert max(len(line) for line in result.stdout.splitlines()) <= 80


@pytest.mark.parametrize("package", ["kvmenc", "fakekvm"])
def test_a_package_can_be_run(package: str) -> None:
    command = [sys.executable, "-m", package, "--help"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.startswith(f"Usage: {package} ")


def test_the_version_is_printed() -> None:
    result = kvmenc("--version")
    assert result.returncode == 0
    assert result.stdout.startswith("kvmenc ")
