"""Memory written by QEMU itself, as its devices do; KVM's dirty log never holds such writes."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from tests.qemu.guest import PAGE

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Self

_PATIENCE_S = 30.0


class Qtest:
    """A connection to a socket of QEMU's qtest; a context manager that closes it.

    Source of the commands: QEMU v7.2, softmmu/qtest.c.
    """

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(_PATIENCE_S)
        self._socket.connect(str(path))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._socket.close()

    def write(self, gpa: int, data: bytes) -> None:
        self._command(f"write {gpa:#x} {len(data):#x} 0x{data.hex()}")

    def fill(self, gpa: int, npages: int, byte: int) -> None:
        self._command(f"memset {gpa:#x} {npages * PAGE:#x} {byte:#x}")

    def _command(self, line: str) -> None:
        self._socket.sendall(f"{line}\n".encode())
        answer = b""
        while not answer.endswith(b"\n"):
            answer += self._socket.recv(64)
        assert answer == b"OK\n", answer
