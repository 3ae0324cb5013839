"""Programs on a terminal of their own, with keys typed into it."""

from __future__ import annotations

import fcntl
import os
import select
import struct
import subprocess
import termios
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tests.cli.test_root import MAIN

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

#: Where the installed commands are.
BIN = Path(MAIN[0]).parent


class Terminal:
    """A program on a terminal of 80 columns, which is its controlling one.

    Attributes:
        process: the program.
        text: all that it has written so far, and what was typed, as far as it was echoed.
    """

    def __init__(self, process: subprocess.Popen[bytes], master: int) -> None:
        self.process = process
        self.text = ""
        self._master = master

    def type(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def read_until(self, wanted: str, seconds: float = 30) -> str:
        """What was written since the last call, up to ``wanted``."""
        start, deadline = len(self.text), time.monotonic() + seconds
        while wanted not in self.text[start:]:
            left_s = deadline - time.monotonic()
            assert self._read(left_s), f"no {wanted!r} in {self.text[start:]!r}"
        return self.text[start:]

    def wait(self, seconds: float = 30) -> int:
        """The exit status, when all that it wrote has been read."""
        deadline = time.monotonic() + seconds
        while self._read(deadline - time.monotonic()):
            assert time.monotonic() < deadline, self.text
        return self.process.wait(seconds)

    def _read(self, seconds: float) -> bool:
        if not select.select([self._master], [], [], max(seconds, 0))[0]:
            return False
        try:
            found = os.read(self._master, 1 << 16)
        except OSError:  # EIO: nobody has the other end any more
            return False
        self.text += found.decode(errors="replace")
        return bool(found)


@contextmanager
def on_terminal(
    command: Sequence[str | Path], width: int = 80, **environment: str
) -> Iterator[Terminal]:
    """Run ``command`` there; what is left of it at the end is killed."""
    master, slave = os.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("4H", 24, width, 0, 0))
    # Whoever runs the tests in the background ignores SIGINT, and so would the program.
    prepared = ["setsid", "--ctty", "env", "--default-signal=INT", *command]
    with subprocess.Popen(
        prepared, stdin=slave, stdout=slave, stderr=slave, env=_environment(environment)
    ) as process:
        os.close(slave)
        try:
            yield Terminal(process, master)
        finally:
            os.close(master)
            process.kill()


def _environment(more: Mapping[str, str]) -> dict[str, str]:
    """Ours, without what would decide about colour and width, and our commands found first."""
    kept = {k: v for k, v in os.environ.items() if k not in {"NO_COLOR", "COLUMNS", "FORCE_COLOR"}}
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    return {**kept, "PATH": path, "TERM": "xterm-256color", **more}
