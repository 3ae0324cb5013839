"""virsh as a way to QMP, with a stand-in that prints what the real one does."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from kvmenc.errors import HostError
from kvmenc.qemu.monitor import CommandError
from kvmenc.qemu.virsh import Virsh
from tests.qemu_text.virsh import install_virsh

if TYPE_CHECKING:
    from pathlib import Path

NO_LIBVIRT = (
    "failed to connect to the hypervisor",
    "Failed to connect socket to '/var/run/libvirt/libvirt-sock': No such file or directory",
)
ANSWER = """{"return":{"status":"running"},"id":"libvirt-424"}\n"""
TOLD = "import pathlib; pathlib.Path({path!r}).write_text(json.dumps(arguments)); print({answer!r})"


@pytest.fixture
def bin_folder(tmp_path: Path) -> Path:
    return tmp_path / "bin"


def arguments_of(
    virsh: Virsh, folder: Path, monkeypatch: pytest.MonkeyPatch, **arguments: object
) -> list[str]:
    """What virsh is called with."""
    told = folder / "arguments"
    install_virsh(folder, TOLD.format(path=str(told), answer=ANSWER), monkeypatch)
    assert virsh.execute("trace-event-get-state", **arguments) == {"status": "running"}
    called: list[str] = json.loads(told.read_text())
    return called


def test_the_command_is_one_argument_in_json(
    bin_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    virsh = Virsh("guest")
    *options, request = arguments_of(virsh, bin_folder, monkeypatch, calc_time=1, name="*")
    assert options == ["--quiet", "qemu-monitor-command", "--domain=guest", "--"]
    assert json.loads(request) == {
        "execute": "trace-event-get-state",
        "arguments": {"calc-time": 1, "name": "*"},
    }


@pytest.mark.parametrize("domain", ["-x", "--help", "a b", "a;b", "$(x)", "'", "é", "a=b", "17"])
def test_no_name_of_a_domain_becomes_anything_else(
    bin_folder: Path, monkeypatch: pytest.MonkeyPatch, domain: str
) -> None:
    called = arguments_of(Virsh(domain, "qemu:///session"), bin_folder, monkeypatch)
    assert called[0] == "--connect=qemu:///session"
    assert called[3] == f"--domain={domain}"
    assert len(called) == 6


@pytest.mark.parametrize("domain", ["", "a\0b"])
def test_a_name_that_no_domain_can_have(domain: str) -> None:
    with pytest.raises(HostError, match="libvirt has none of this name"):
        Virsh(domain)


def fails_with(
    program: str, folder: Path, monkeypatch: pytest.MonkeyPatch, patience_s: float = 20.0
) -> HostError:
    install_virsh(folder, program, monkeypatch)
    with (
        pytest.raises(HostError) as caught,
        Virsh("guest", patience_s=patience_s) as virsh,
    ):
        virsh.execute("query-status")
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("domain guest: ")
    return caught.value


def test_an_error_of_qemu_is_told_apart(bin_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = {"id": "libvirt-422", "error": {"class": "CommandNotFound", "desc": "not found"}}
    error = fails_with(f"print({json.dumps(answer)!r})\nprint()", bin_folder, monkeypatch)
    assert isinstance(error, CommandError)
    assert (error.error_class, error.description) == ("CommandNotFound", "not found")
    assert str(error) == "domain guest: query-status: QEMU refuses: not found"


@pytest.mark.parametrize(
    ("stderr", "shown"),
    [
        ("error: failed to get domain 'guest'\n", "virsh: failed to get domain 'guest'"),
        ("".join(f"error: {it}\n" for it in NO_LIBVIRT), f"virsh: {'; '.join(NO_LIBVIRT)}"),
        (
            "error: Requested operation is not valid: domain is not running\n",
            "virsh: Requested operation is not valid: domain is not running",
        ),
        ("", "virsh: fails without a word"),
    ],
)
def test_an_error_of_virsh_is_one_line(
    bin_folder: Path, monkeypatch: pytest.MonkeyPatch, stderr: str, shown: str
) -> None:
    program = f"sys.stderr.write({stderr!r}); sys.exit(1)"
    error = fails_with(program, bin_folder, monkeypatch)
    assert not isinstance(error, CommandError)
    assert str(error) == f"domain guest: query-status: {shown}"


@pytest.mark.parametrize("printed", ["", "no JSON", "[]", '{"error": {}}', "{}", '"return"'])
def test_an_answer_that_is_none(
    bin_folder: Path, monkeypatch: pytest.MonkeyPatch, printed: str
) -> None:
    error = fails_with(f"print({printed!r})", bin_folder, monkeypatch)
    assert "virsh prints" in str(error)


def test_virsh_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(HostError, match="virsh is not installed; it comes with libvirt-clients"):
        Virsh("guest").execute("query-status")


def test_virsh_that_may_not_be_run(bin_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_virsh(bin_folder, "", monkeypatch)
    (bin_folder / "virsh").write_text("#!/nothing/here\n")
    monkeypatch.setenv("PATH", str(bin_folder))
    with pytest.raises(HostError, match="virsh"):
        Virsh("guest").execute("query-status")


def test_virsh_that_never_answers(bin_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    error = fails_with("time.sleep(60)", bin_folder, monkeypatch, patience_s=0.5)
    assert "query-status: no answer from virsh within 0.5 s" in str(error)


def test_virsh_is_asked_in_its_own_language_and_without_a_question(
    bin_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A password that it asks for would hang."""
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    program = "import os; print(json.dumps({'return': [os.environ['LC_ALL'], sys.stdin.read()]}))"
    install_virsh(bin_folder, program, monkeypatch)
    assert Virsh("guest").execute("query-status") == ["C", ""]
