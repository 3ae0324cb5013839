"""Programs on a real /dev/kvm, with the fake laid over it."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from fakekvm import Host, host_named
from fakekvm.exportcerts import export
from fakekvm.supervisor import Over, Unavailable, is_something
from tests.fakekvm.supervisor.conftest import PROGRAMS, on_fake
from tests.support import need_kvm

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

OVER_PY = [sys.executable, "-S", "-E", str(PROGRAMS / "over.py")]
FLIPS = ["--over", "--flip-port", "0x99"]


@pytest.mark.kvm
class TestOnARealKvm:
    @pytest.fixture(autouse=True)
    def _kvm_opens(self) -> None:
        need_kvm()

    @pytest.mark.parametrize("flags", [(), ("-static",)], ids=["dynamic", "static"])
    def test_a_c_programs_guest_flips_and_writes(
        self, build: Callable[..., str], flags: list[str]
    ) -> None:
        """It checks both bitmaps by itself."""
        result = on_fake(*FLIPS, build(*flags, source="over.c"))
        assert result.returncode == 0, result.stderr

    @pytest.mark.parametrize("what", ["flips", "two-vms", "processes"])
    def test_a_python_programs_guests(self, what: str) -> None:
        result = on_fake(*FLIPS, *OVER_PY, what)
        assert result.returncode == 0, result.stderr

    def test_without_a_port_no_announcement_is_taken(self) -> None:
        result = on_fake("--over", *OVER_PY, "not-looked-at")
        assert result.returncode == 0, result.stderr
        assert "flips not seen (--flip-port)" in result.stderr

    @pytest.mark.parametrize("host", ["sev", "csv", "sev-v9"])
    def test_a_page_is_sent_and_received(self, host: str, tmp_path: Path) -> None:
        export(tmp_path)
        certificate = str(tmp_path / "amd.cert")
        result = on_fake("--over", "--host", host, *OVER_PY, "sev", certificate)
        assert result.returncode == 0, result.stderr

    def test_it_is_the_overlay_that_answers(self) -> None:
        """The kernel alone does not: or the tests above would show nothing."""
        result = subprocess.run([*OVER_PY, "flips"], capture_output=True, text=True, check=False)
        assert "Inappropriate ioctl" in result.stderr

    def test_what_is_said_fits_a_line_and_is_true(self) -> None:
        result = on_fake(*FLIPS, "--host", "sev-v9", "true")
        told = "fakekvm: /dev/kvm is real; over it: SEV, v9's bitmap, flips by port 0x99\n"
        assert (result.returncode, result.stderr) == (0, told)
        assert len(told) <= 80

    def test_a_vm_of_a_type_is_the_kernels(self) -> None:
        make = "import fcntl; fcntl.ioctl(open('/dev/kvm', 'rb+', 0), 0xAE01, 2)"
        result = on_fake("--over", sys.executable, "-S", "-c", make)
        assert result.returncode == 1
        assert "KVM_CREATE_VM of type 2 is this kernel's to make or refuse" in result.stderr
        assert "Invalid argument" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--over", "--scenario", "bursts"], "cannot run over a real KVM"),
        (["--flip-port", "1"], "needs --over"),
        (["--over", "--flip-port", "0x10000"], "is no I/O port"),
        (["--over", "--flip-port", "com1"], "is no I/O port"),
        (["--over", "--host", "mainline"], "nothing of it to"),
        (["--over", "--host", "sev", "--flip-port", "1"], "has no bitmap"),
    ],
)
def test_usage(arguments: list[str], told: str) -> None:
    result = on_fake(*arguments, "true")
    assert result.returncode == 2
    assert told in result.stderr


def test_where_there_is_no_kvm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("fakekvm.supervisor.over.KVM_PATH", str(tmp_path / "kvm"))
    result = on_fake("--over", "true")
    assert result.returncode == 3
    assert result.stderr.endswith("/kvm: No such file or directory: --over needs a real one\n")


def test_only_hosts_with_something_to_lay_over() -> None:
    assert not is_something(Host())
    assert is_something(host_named("csv"))
    assert is_something(host_named("sev-v10"))


@pytest.mark.kvm
def test_flips_need_registers_in_kvm_run(monkeypatch: pytest.MonkeyPatch) -> None:
    need_kvm()
    monkeypatch.setattr("fakekvm.supervisor.over._capability", lambda _kvm, _number: 0)
    with pytest.raises(Unavailable, match="KVM_CAP_SYNC_REGS"):
        Over(host_named("sev"), 0x99, print)
