"""Each piece of evidence on hosts that are known, and the verdicts drawn."""

from __future__ import annotations

import ctypes
import errno
import os
from typing import TYPE_CHECKING

import pytest

import fakekvm
from kvmenc import uapi
from kvmenc.backend.fake import FakeBackend
from kvmenc.kvm import KvmSystem
from kvmenc.probe import sev
from kvmenc.probe.capabilities import vm_type_names
from kvmenc.probe.result import Probe, probe

if TYPE_CHECKING:
    import mmap
    from pathlib import Path


def probe_of(host: str) -> Probe:
    return probe(FakeBackend(fakekvm.host_named(host)))


def answers_of(host: str) -> dict[str, tuple[str, str]]:
    return {it.question: (it.answer, it.because) for it in probe_of(host).verdicts}


def value_of(found: Probe, name: str) -> str:
    return next(it.value for it in found.evidence if it.name == name)


def test_vm_types_by_name() -> None:
    assert vm_type_names(0b10101) == ["default", "SEV", "SNP"]
    assert vm_type_names(1 << 9) == ["type 9"]
    assert vm_type_names(0) == []


@pytest.mark.parametrize(
    ("host", "answer", "because"),
    [
        ("mainline", "no", "no SEV VM type"),
        ("sev", "yes", "VM types SEV, SEV_ES"),
        ("snp", "yes", "VM types SEV, SEV_ES, SNP"),
        ("sev-v2-2019", "yes", "its types are not listed"),
    ],
)
def test_is_it_a_sev_host(host: str, answer: str, because: str) -> None:
    found = answers_of(host)["SEV guests"]
    assert found[0] == answer
    assert because in found[1]


def test_a_number_of_one_meaning_is_named_and_one_of_several_is_not_guessed() -> None:
    question = "private/shared by KVM_GET_PAGE_ENC_BITMAP"
    assert answers_of("mainline")[question][0] == "no"
    assert answers_of("sev-rfc-2018")[question] == ("yes", "revision rfc-2018")
    answer, because = answers_of("sev-v9")[question]
    assert answer == "unknown"
    assert "v9" in because
    assert "v10" in because


def test_snp_private_memory_has_no_dirty_log() -> None:
    answer, because = answers_of("snp")["dirty pages of SNP/TDX private memory"]
    assert answer == "no"
    assert "guest_memfd refuses" in because


def test_the_encrypt_op_with_null_tells_sev_from_none() -> None:
    assert value_of(probe_of("sev"), "SEV commands") == "0"
    assert value_of(probe_of("mainline"), "SEV commands") == "ENOTTY"


def test_a_kernel_without_manual_protect_takes_bits_by_reading() -> None:
    capabilities = dict(fakekvm.Host().capabilities)
    del capabilities[uapi.KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2]
    found = probe(FakeBackend(fakekvm.Host(capabilities=capabilities)))
    verdict = next(it for it in found.verdicts if it.question == "read them without clearing")
    assert (verdict.answer, "never beside a migration" in verdict.because) == ("no", True)


def test_module_parameters_are_read_as_the_kernel_writes_them(tmp_path: Path) -> None:
    parameters = tmp_path / "sys/module/kvm_amd/parameters"
    parameters.mkdir(parents=True)
    (parameters / "sev").write_text("Y\n")
    (parameters / "sev_es").write_text("N\n")
    found = {it.name: (it.value, it.says) for it in sev.files(tmp_path)}
    assert found["kvm_amd.sev"] == ("Y", "in effect")
    assert found["kvm_amd.sev_es"] == ("N", "not in effect")
    assert found["kvm_amd.sev_snp"][0] == "absent"


def test_cpu_flags(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    cpuinfo = tmp_path / "proc/cpuinfo"
    cpuinfo.write_text("processor : 0\nflags\t\t: fpu svm sse sev sev_es\n")
    assert sev.cpu_flags(tmp_path).value == "svm sev sev_es"
    cpuinfo.write_text("flags : fpu\n")
    assert sev.cpu_flags(tmp_path).says == "neither SVM nor VMX"


class Firmware:
    """A /dev/sev that opens, and answers as the bytes say; it refuses to be opened for writing."""

    name = "firmware"
    answer = (
        bytes([1, 55, 2]) + (0x100).to_bytes(4, "little") + bytes([8]) + (3).to_bytes(4, "little")
    )

    def __init__(self, open_errno: int = 0, ioctl_errno: int = 0, firmware_error: int = 0) -> None:
        self.open_errno, self.ioctl_errno = open_errno, ioctl_errno
        self.firmware_error = firmware_error
        self.closed = 0

    def open(self, path: str, flags: int) -> int:
        assert (path, flags) == ("/dev/sev", os.O_RDONLY)
        if self.open_errno:
            raise OSError(self.open_errno, "")
        return 77

    def ioctl(self, fd: int, request: int, arg: int) -> int:
        assert (fd, request) == (77, 0xC0105300)
        command = uapi.sev_issue_cmd.from_address(arg)
        assert command.cmd == 1, "anything else could change the platform; 0 is a factory reset"
        if self.ioctl_errno:
            command.error = self.firmware_error
            raise OSError(self.ioctl_errno, "")
        ctypes.memmove(command.data, self.answer, len(self.answer))
        return 0

    def mmap(self, fd: int, length: int, offset: int) -> mmap.mmap:
        raise NotImplementedError

    def close(self, fd: int) -> None:
        self.closed += fd == 77


def test_the_platform_status_is_read_and_the_device_closed() -> None:
    firmware = Firmware()
    found = sev.platform_status(firmware)
    assert found.value == "API 1.55 build 8"
    assert found.says == "working, 3 guests, ES configured"
    assert firmware.closed == 1


@pytest.mark.parametrize(
    ("firmware", "value", "says"),
    [
        (Firmware(open_errno=errno.ENOENT), "ENOENT", "no SEV firmware driver"),
        (Firmware(open_errno=errno.EACCES), "EACCES", "run as root"),
        (Firmware(ioctl_errno=errno.EIO, firmware_error=8), "EIO", "SEV_RET_INACTIVE"),
    ],
)
def test_a_firmware_that_does_not_answer_is_evidence_too(
    firmware: Firmware, value: str, says: str
) -> None:
    found = sev.platform_status(firmware)
    assert found.value == value
    assert says in found.says


@pytest.mark.parametrize("host", ["mainline", "sev"])
def test_the_cpuid_leaf_is_found_or_said_to_be_absent(host: str) -> None:
    with KvmSystem.open(FakeBackend(fakekvm.host_named(host))) as system:
        found = sev.sev_leaf(system)
    assert found.name == "CPUID"
    assert ("SEV" in found.says) == (host == "sev")
