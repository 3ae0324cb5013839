"""A running QEMU asked through libvirt, which holds its QMP socket."""

from __future__ import annotations

import os
import subprocess
from typing import Self

import msgspec

from kvmenc.errors import HostError
from kvmenc.qemu.monitor import CommandError, Monitor, one_line, qmp_arguments, what_is_asked

__all__ = ["Virsh"]

# As long as a QMP socket's, and for virsh to connect to a remote libvirt.
PATIENCE_S = 20.0


class _Error(msgspec.Struct):
    error_class: str = msgspec.field(name="class")
    desc: str


class _Answer(msgspec.Struct):
    """What virsh prints: QEMU's whole answer (libvirt v9.0, qemuMonitorJSONArbitraryCommand)."""

    result: object | msgspec.UnsetType = msgspec.field(name="return", default=msgspec.UNSET)
    error: _Error | None = None


class Virsh(Monitor):
    """``virsh qemu-monitor-command``, a process for each command.

    libvirt marks the domain as tainted by that (``custom-monitor``) until it ends.

    Args:
        domain: its name, id or UUID, as virsh takes it.
        connect_uri: of libvirt; virsh's own default without it.
        patience_s: how long any answer may take.
    """

    def __init__(
        self, domain: str, connect_uri: str | None = None, patience_s: float = PATIENCE_S
    ) -> None:
        if not domain or "\0" in domain + (connect_uri or ""):
            raise HostError(f"domain {domain!r}: libvirt has none of this name")
        self.name = f"domain {domain}"
        self._patience_s = patience_s
        connect = [f"--connect={connect_uri}"] if connect_uri else []
        # Behind `=` and `--` nothing is taken for an option, however a domain is called.
        self._arguments = [*connect, "--quiet", "qemu-monitor-command", f"--domain={domain}", "--"]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        """Nothing is held between commands."""

    def execute(self, command: str, **arguments: object) -> object:
        """As ``Monitor``."""
        where = f"{self.name}: {what_is_asked(command, arguments)}"
        request = {"execute": command, "arguments": qmp_arguments(arguments)}
        text = self._run(msgspec.json.encode(request).decode(), where)
        try:
            answer = msgspec.json.decode(text, type=_Answer)
        except (ValueError, RecursionError) as error:
            why = one_line(str(error))
            raise HostError(f"{where}: virsh prints no answer of QMP: {why}") from error
        if answer.error:
            raise CommandError(where, answer.error.error_class, answer.error.desc)
        if answer.result is msgspec.UNSET:
            raise HostError(f"{where}: virsh prints an answer without result")
        return answer.result

    def _run(self, request: str, where: str) -> bytes:
        try:
            done = subprocess.run(
                ["virsh", *self._arguments, request],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=self._patience_s,
                env={**os.environ, "LC_ALL": "C"},
                check=False,
            )
        except FileNotFoundError as error:
            raise HostError(
                f"{self.name}: virsh is not installed; it comes with libvirt-clients"
            ) from error
        except OSError as error:
            raise HostError(f"{self.name}: virsh does not start: {error.strerror}") from error
        except subprocess.TimeoutExpired as error:
            raise HostError(
                f"{where}: no answer from virsh within {self._patience_s:g} s; does "
                "`virsh list` answer?"
            ) from error
        if done.returncode:
            raise HostError(f"{where}: virsh: {_complaint(done.stderr) or 'fails without a word'}")
        return done.stdout


def _complaint(stderr: bytes) -> str:
    """Virsh writes ``error: `` before each line of its errors, the general one first."""
    lines = stderr.decode(errors="replace").splitlines()
    return one_line("; ".join(it.removeprefix("error: ").strip() for it in lines if it.strip()))
