"""A QEMU whose stderr, and so whose log, is what a test wants it to be."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Self

from kvmenc import procfs
from kvmenc.errors import HostError
from kvmenc.qemu.monitor import ask
from kvmenc.qemu.qmp import Qmp
from tests.qemu.guest import Guest
from tests.qemu.setup import PROGRAM, Setup

if TYPE_CHECKING:
    from kvmenc.qemu.monitor import Monitor

_PATIENCE_S = 20.0


class Logged:
    """QEMU logging to something that the test can read; a context manager.

    Args:
        folder: for its socket and BIOS.
        stderr: what it gets for stderr: an end of a pipe or socket.
        extra: more of the command line.
        accel: who runs the guest.

    Attributes:
        pid: its process.
        qmp: a monitor.
    """

    def __init__(self, folder: Path, stderr: int, *extra: str, accel: str = "kvm") -> None:
        folder.mkdir()
        self._cleanup = ExitStack()
        self._socket, image, pidfile = (folder / name for name in ("qmp", "bios", "pid"))
        image.write_bytes(Guest(1).image)
        arguments = [accel if it == "kvm" else it for it in Setup().arguments("pc")]
        arguments += ["-bios", str(image), "-qmp", f"unix:{self._socket},server=on,wait=off"]
        # Looks like its log, as does the pidfile that libvirt leaves open in its QEMUs.
        with (folder / "stdout").open("wb") as decoy:
            self._process = subprocess.Popen(
                [PROGRAM, *arguments, "-pidfile", str(pidfile), *extra],
                stdin=subprocess.DEVNULL,
                stdout=decoy,
                stderr=stderr,
            )
        self._cleanup.callback(self.end)
        try:
            self.qmp = self._cleanup.enter_context(self._connect())
            self.pid = int(pidfile.read_text())
        except BaseException:
            self._cleanup.close()
            raise
        if self.pid != self._process.pid:  # a daemon
            self._cleanup.callback(os.kill, self.pid, 9)

    def _connect(self) -> Qmp:
        """The socket has a name a moment before anybody listens on it."""
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            try:
                return Qmp(self._socket)
            except HostError:
                assert time.monotonic() < deadline
                time.sleep(0.01)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._cleanup.close()

    def end(self) -> None:
        self._process.kill()
        self._process.wait(_PATIENCE_S)


class Pipe:
    """A pipe, or a pair of sockets, that a QEMU logs to; a context manager."""

    def __init__(self, *, sockets: bool = False) -> None:
        if sockets:
            ours, theirs = socket.socketpair()
            self._ours, self.theirs = ours.detach(), theirs.detach()
        else:
            self._ours, self.theirs = os.pipe()
        os.set_blocking(self._ours, False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        os.close(self._ours)
        os.close(self.theirs)

    def read(self) -> str:
        """What has come since."""
        try:
            return os.read(self._ours, 1 << 20).decode()
        except BlockingIOError:
            return ""


def events_on(monitor: Monitor) -> set[str]:
    """The trace events that are switched on."""
    events = ask(monitor, list[dict[str, object]], "trace-event-get-state", name="*")
    return {str(it["name"]) for it in events if it["state"] == "enabled"}


def say_something(monitor: Monitor) -> None:
    """Have QEMU write to its log, wherever that is."""
    for on in (True, False):
        monitor.execute("trace-event-set-state", name="handle_qmp_command", enable=on)


def left_files(pid: int) -> list[str]:
    """What kvmenc has in /tmp because of a process."""
    return [path.name for path in Path("/tmp").glob(f"kvmenc-{pid}-*")]


def files_of(pid: int) -> set[str]:
    """What a process has open, but for sockets."""
    return {it for it in procfs.fd_links(pid).values() if not it.startswith("socket:")}


def comes_to_have_open(pid: int, files: set[str]) -> bool:
    """Whether just these are open soon: QEMU closes a log when no thread can be writing to it."""
    deadline = time.monotonic() + _PATIENCE_S
    while files_of(pid) != files:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True
