"""One checked ioctl: sizes, EINTR, and errors that say what to do."""

from __future__ import annotations

import ctypes
import errno
import os
from typing import TYPE_CHECKING

import pytest

from kvmenc import uapi
from kvmenc.backend import LocalBackend
from kvmenc.call import HINTS, call, hint_for
from kvmenc.errors import HostError, IoctlError, NotSupported, SlotNotLogged, WrongProcess

if TYPE_CHECKING:
    import mmap


class Scripted:
    """A backend that answers from a list: an errno to raise, or a result."""

    name = "scripted"

    def __init__(self, *answers: int | OSError) -> None:
        self.answers = list(answers)
        self.calls: list[tuple[int, int, int]] = []

    def open(self, path: str, flags: int) -> int:
        raise NotImplementedError

    def ioctl(self, fd: int, request: int, arg: int) -> int:
        self.calls.append((fd, request, arg))
        answer = self.answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer

    def mmap(self, fd: int, length: int, offset: int) -> mmap.mmap:
        raise NotImplementedError

    def close(self, fd: int) -> None:
        raise NotImplementedError


def failing(number: int) -> Scripted:
    return Scripted(OSError(number, os.strerror(number)))


def test_a_struct_goes_by_address_and_an_integer_as_it_is() -> None:
    backend, arg = Scripted(0, 7), uapi.kvm_dirty_log()
    call(backend, 3, uapi.KVM_GET_DIRTY_LOG, arg)
    assert call(backend, 4, uapi.KVM_CHECK_EXTENSION, 168) == 7
    assert backend.calls == [
        (3, uapi.KVM_GET_DIRTY_LOG, ctypes.addressof(arg)),
        (4, uapi.KVM_CHECK_EXTENSION, 168),
    ]


def test_eintr_is_retried() -> None:
    backend = Scripted(OSError(errno.EINTR, ""), OSError(errno.EINTR, ""), 5)
    assert call(backend, 3, uapi.KVM_CHECK_EXTENSION) == 5
    assert len(backend.calls) == 3


def test_a_struct_of_another_size_is_never_sent() -> None:
    backend = Scripted()
    with pytest.raises(TypeError, match="KVM_CLEAR_DIRTY_LOG takes 24 bytes"):
        call(backend, 3, uapi.KVM_CLEAR_DIRTY_LOG, uapi.kvm_dirty_log())
    assert not backend.calls


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.EIO, WrongProcess),
        (errno.ENOENT, SlotNotLogged),
        (errno.ENOTTY, NotSupported),
        (errno.EINVAL, IoctlError),
        (errno.EFAULT, IoctlError),
    ],
)
def test_a_failure_names_the_ioctl_the_errno_and_what_to_do(
    number: int, kind: type[HostError]
) -> None:
    with pytest.raises(kind) as caught:
        call(failing(number), 3, uapi.KVM_GET_DIRTY_LOG, uapi.kvm_dirty_log(), "slot=3")
    text = str(caught.value)
    assert text.startswith(f"KVM_GET_DIRTY_LOG(slot=3) failed: {errno.errorcode[number]}: ")
    assert len(text.split(": ", 2)[2]) > 10
    assert "\n" not in text
    assert caught.value.exit_code == 3


def test_an_ioctl_error_is_an_os_error_with_its_errno() -> None:
    with pytest.raises(OSError, match=r"ENXIO.*ring") as caught:
        call(failing(errno.ENXIO), 3, uapi.KVM_GET_DIRTY_LOG, uapi.kvm_dirty_log())
    assert caught.value.errno == errno.ENXIO


def test_every_hint_is_of_an_ioctl_that_exists() -> None:
    names = {value.name for value in vars(uapi).values() if isinstance(value, uapi.Ioctl)}
    names |= {revision.get.name for revision in uapi.REVISIONS.values()}
    assert {ioctl for ioctl, _ in HINTS} <= names
    assert hint_for("KVM_NO_SUCH_THING", errno.EDOM) == ""


def test_the_local_backend_raises_the_kernels_errno() -> None:
    backend = LocalBackend()
    null = backend.open("/dev/null", os.O_RDWR)
    try:
        with pytest.raises(OSError, match=os.strerror(errno.ENOTTY)) as caught:
            backend.ioctl(null, uapi.KVM_GET_API_VERSION, 0)
        assert caught.value.errno == errno.ENOTTY
        assert not os.get_inheritable(null)
    finally:
        backend.close(null)
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        backend.ioctl(null, uapi.KVM_GET_API_VERSION, 0)
