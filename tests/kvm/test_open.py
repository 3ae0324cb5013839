"""No KVM, no rights, another version: one clear line, exit code 3."""

from __future__ import annotations

import errno

import pytest

import fakekvm
from kvmenc import uapi
from kvmenc.backend.fake import FakeBackend
from kvmenc.errors import NoKvm
from kvmenc.kvm import KvmSystem


@pytest.mark.parametrize(
    ("host", "why", "what_to_do"),
    [("no-kvm", "ENOENT", "load kvm_amd or kvm_intel"), ("no-rights", "EACCES", "join the group")],
)
def test_an_absent_or_forbidden_kvm_is_explained(host: str, why: str, what_to_do: str) -> None:
    with pytest.raises(NoKvm) as caught:
        KvmSystem.open(FakeBackend(fakekvm.host_named(host)))
    text = str(caught.value)
    assert text.startswith(f"cannot open /dev/kvm: {why}: {what_to_do}")
    assert text.endswith("or use --backend fake")
    assert "\n" not in text
    assert caught.value.exit_code == 3


class OldBackend(FakeBackend):
    """A /dev/kvm of long ago."""

    open_fds = 0

    def open(self, path: str, flags: int) -> int:
        self.open_fds += 1
        return super().open(path, flags)

    def close(self, fd: int) -> None:
        self.open_fds -= 1
        super().close(fd)

    def ioctl(self, fd: int, request: int, arg: int) -> int:
        return 11 if request == uapi.KVM_GET_API_VERSION else super().ioctl(fd, request, arg)


def test_another_api_version_is_refused_and_the_descriptor_closed() -> None:
    backend = OldBackend(fakekvm.Host())
    with pytest.raises(NoKvm, match="KVM API version 11, not 12"):
        KvmSystem.open(backend)
    assert backend.open_fds == 0


def test_an_unusual_errno_is_still_named() -> None:
    class Odd(FakeBackend):
        def open(self, path: str, flags: int) -> int:
            raise OSError(errno.ENODEV, "no such device")

    with pytest.raises(NoKvm, match="ENODEV: the machine's virtualisation is switched off"):
        KvmSystem.open(Odd(fakekvm.Host()))
