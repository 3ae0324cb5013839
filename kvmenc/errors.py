"""The exceptions of kvmenc, and the exit code that each one means.

::

    KvmencError                      what every deliberate error of this package is
    ├── CheckFailed              1   the question was answered, and the answer is no
    ├── HostError                3   this host, kernel or process cannot do it
    │   ├── NoKvm                      /dev/kvm is absent or may not be opened
    │   ├── NotSupported               the kernel lacks the ioctl or capability
    │   ├── NotPermitted               a process may not be looked into
    │   └── IoctlError  (OSError)      an ioctl failed; says which, the errno by name, what to do
    │       ├── WrongProcess           EIO: the fd belongs to another process's VM
    │       └── SlotNotLogged          ENOENT: no such memslot, or dirty logging is off
    └── InputError               4   what was given is wrong: a layout, a bitmap, a file
        ├── LayoutError                slots or blocks that overlap, overflow or do not join
        ├── BitmapSizeError            a bitmap shorter or longer than its slot
        ├── CaptureError               a capture file that cannot be used
        ├── RecordingError             a recording of calls that cannot be used
        ├── ReplayDivergence           calls that are not the recorded ones
        └── StreamError                a migration stream that cannot be used

Usage errors (2) are click's own; Ctrl-C is 130.
"""

from __future__ import annotations

import errno as errno_module

__all__ = [
    "BitmapSizeError",
    "CaptureError",
    "CheckFailed",
    "HostError",
    "InputError",
    "IoctlError",
    "KvmencError",
    "LayoutError",
    "NoKvm",
    "NotPermitted",
    "NotSupported",
    "RecordingError",
    "ReplayDivergence",
    "SlotNotLogged",
    "StreamError",
    "WrongProcess",
    "errno_name",
]


def errno_name(number: int) -> str:
    """The symbolic name of an errno: ``errno_name(2) == "ENOENT"``."""
    return errno_module.errorcode.get(number, f"errno {number}")


class KvmencError(Exception):
    """Root of all deliberate errors. One line of text, fit to print."""

    exit_code = 1


class CheckFailed(KvmencError):
    """The command ran; the answer is no."""

    exit_code = 1


class HostError(KvmencError):
    """The host cannot do what was asked."""

    exit_code = 3


class NoKvm(HostError):
    """/dev/kvm is absent, or this user may not open it."""


class NotSupported(HostError):
    """The kernel lacks an ioctl or a capability."""


class NotPermitted(HostError):
    """A process may not be looked into, or not be traced."""


class IoctlError(HostError, OSError):
    """An ioctl failed.

    Attributes:
        errno: the error number.
        ioctl: the request's kernel name.
        hint: what to do about it; may be empty.
    """

    def __init__(self, ioctl: str, errno: int, detail: str = "", hint: str = "") -> None:
        self.ioctl = ioctl
        self.hint = hint
        text = f"{ioctl}({detail}) failed: {errno_name(errno)}"
        OSError.__init__(self, errno, f"{text}: {hint}" if hint else text)

    def __str__(self) -> str:
        return str(self.strerror)


class WrongProcess(IoctlError):
    """EIO: KVM answers a VM's ioctls only in the process that created the VM."""


class SlotNotLogged(IoctlError):
    """ENOENT: there is no such memslot, or it was created without dirty logging."""


class InputError(KvmencError):
    """What was given is wrong."""

    exit_code = 4


class LayoutError(InputError):
    """Memslots or RAMBlocks that overlap, overflow or do not join."""


class BitmapSizeError(InputError):
    """A bitmap whose size does not fit its slot.

    Attributes:
        expected_bytes: what the slot needs.
        got_bytes: what was given.
    """

    def __init__(self, what: str, expected_bytes: int, got_bytes: int) -> None:
        self.expected_bytes = expected_bytes
        self.got_bytes = got_bytes
        super().__init__(f"{what}: the bitmap needs {expected_bytes} bytes, got {got_bytes}")


class CaptureError(InputError):
    """A capture file that cannot be read or used."""


class RecordingError(InputError):
    """A recording of calls that cannot be written, read or used."""


class ReplayDivergence(InputError):
    """What is called is not what was recorded, or less of it: the text shows both."""


class StreamError(InputError):
    """A migration stream that is damaged, or of which something cannot be told."""
