"""A real QEMU under test: started, spoken to over QMP, and always ended."""

from __future__ import annotations

import asyncio
import math
import re
import resource
import subprocess
import time
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any, NamedTuple, Self, TypeVar

import msgspec
from qemu.qmp import QMPClient, QMPError

from kvmenc.capture import BlockFacts, Capture
from kvmenc.plan.result import QueryMigrate
from tests.qemu.guest import PAGE, RAM_PAGES

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path

    from kvmenc.plan import Parameters
    from tests.qemu.guest import Guest

PROGRAM = "qemu-system-x86_64"

_PATIENCE_S = 30.0
# A busy QEMU whose tests were killed with SIGKILL ends by itself.
_CPU_LIMIT_S = 60
# Before whatever else keeps the machine busy; without the right to, nice says so and goes on.
_FIRST = ("nice", "-n", "-10")
_BLOCK = re.compile(r"^ *(\S+) +4 KiB +0x\w+ +(0x\w+) ", re.MULTILINE)
_AT = re.compile(r"Host virtual address for 0x\w+ \((\S+)\) is (0x\w+)")


T = TypeVar("T")


class _Status(msgspec.Struct):
    status: str


def _status(progress: object) -> str:
    return msgspec.convert(progress, _Status).status


class Place(NamedTuple):
    """Where a guest address lies in QEMU."""

    block: str
    host_addr: int


class Machine:
    """QEMU with 64 MiB of RAM and no devices but the board's; a context manager that ends it.

    ACPI is off because its tables are RAMBlocks whose content nobody here knows.

    Args:
        folder: made for the socket, the BIOS and the logs.
        guest: what runs in it.
        board: QEMU's machine type.

    Attributes:
        guest: as given.
        second_socket: a QMP socket that nobody is connected to.
    """

    def __init__(self, folder: Path, guest: Guest, board: str = "pc") -> None:
        self.guest = guest
        self._folder = folder
        self.second_socket = folder / "second-qmp"
        self._qmp = QMPClient()
        self._cleanup = ExitStack()
        try:
            self._start(board)
            self.wait_for("the guest to fill its memory", self._is_filled)
        except BaseException:
            self._cleanup.close()
            raise

    def _start(self, board: str) -> None:
        self._folder.mkdir()
        socket, bios, log = (self._folder / name for name in ("qmp", "bios", "stderr"))
        bios.write_bytes(self.guest.image)
        self._runner = self._cleanup.enter_context(asyncio.Runner())
        self._await(self._qmp.start_server(str(socket)))
        arguments = ["-nodefaults", "-display", "none", "-accel", "kvm", "-M", f"{board},acpi=off"]
        arguments += ["-m", str(RAM_PAGES * PAGE >> 20), "-bios", str(bios)]
        arguments += ["-qmp", f"unix:{socket}"]
        arguments += ["-qmp", f"unix:{self.second_socket},server=on,wait=off"]
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [*_FIRST, PROGRAM, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        self._cleanup.callback(self._end)
        resource.prlimit(self._process.pid, resource.RLIMIT_CPU, (_CPU_LIMIT_S, _CPU_LIMIT_S))
        try:
            self._await(self._qmp.accept())
        except TimeoutError:
            raise AssertionError(f"QEMU does not come up: {log.read_text()}") from None
        self._cleanup.callback(self._disconnect)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._cleanup.close()

    def _end(self) -> None:
        self._process.kill()
        self._process.wait(_PATIENCE_S)

    def _disconnect(self) -> None:
        with suppress(QMPError, OSError, EOFError):
            self._await(self._qmp.disconnect())

    def _await(self, coroutine: Coroutine[Any, Any, object]) -> object:
        return self._runner.run(asyncio.wait_for(coroutine, _PATIENCE_S))

    def wait_for(self, what: str, look: Callable[[], T | None]) -> T:
        """Look again and again, until there is something to be seen; returns that."""
        deadline = time.monotonic() + _PATIENCE_S
        while not (seen := look()):
            assert time.monotonic() < deadline, f"waited {_PATIENCE_S:g} s for {what}"
            time.sleep(0.01)
        return seen

    def _is_filled(self) -> bool:
        word = self.monitor(f"xp /1wx {self.guest.last_filled_gpa:#x}").split()[-1]
        return int(word, 16) != 0

    def command(self, name: str, /, **arguments: object) -> object:
        """A QMP command; underscores in the names of arguments stand for hyphens."""
        members = {key.replace("_", "-"): value for key, value in arguments.items()}
        return self._await(self._qmp.execute(name, members))

    def monitor(self, line: str) -> str:
        """A command of the human monitor, and its answer."""
        return str(self.command("human-monitor-command", command_line=line))

    def block_pages(self) -> dict[str, int]:
        """The RAMBlocks and their pages in use, in the order in which they are migrated."""
        lines = _BLOCK.findall(self.monitor("info ramblock"))
        return {name: int(used, 16) // PAGE for name, used in lines}

    def capture(self) -> Capture:
        """What the guest is known to do, as if it had been looked at."""
        blocks = [
            BlockFacts(name, npages, 0, self.guest.zero_pages(name, npages), 0)
            for name, npages in self.block_pages().items()
        ]
        return Capture(
            source="a QEMU under test",
            private_source="nothing is private",
            blocks=tuple(blocks),
            curve=self.guest.curve,
        )

    def find(self, gpa: int) -> Place | None:
        """Where QEMU says that a guest address lies; None: no memory there."""
        match = _AT.search(self.monitor(f"gpa2hva {gpa:#x}"))
        return Place(match[1], int(match[2], 16)) if match else None

    def trace_to(self, log: Path, event: str) -> None:
        """Have QEMU write a trace event to a log file."""
        for line in (f"logfile {log}", f"trace-event {event} on"):
            assert not self.monitor(line)

    def migrate(
        self,
        parameters: Parameters,
        command: str = "cat >/dev/null",
        until_sync: float = math.inf,
    ) -> QueryMigrate:
        """Migrate into a shell command; returns what query-migrate says at the end.

        Args:
            parameters: max-bandwidth and downtime-limit.
            command: what reads the stream.
            until_sync: give up at the sync of this number.
        """
        self.command(
            "migrate-set-parameters",
            max_bandwidth=int(parameters.max_bandwidth_bytes_per_s),
            downtime_limit=int(parameters.downtime_limit_ms),
        )
        self.command("migrate", uri=f"exec:{command}")
        end = self.wait_for("the migration", lambda: self._end_of_migration(until_sync))
        if end.status == "active":
            self.command("migrate_cancel")
            self.wait_for(
                "the cancelling", lambda: _status(self.command("query-migrate")) == "cancelled"
            )
        return end

    def _end_of_migration(self, until_sync: float) -> QueryMigrate | None:
        progress = self.command("query-migrate")
        status = _status(progress)
        assert status in {"setup", "active", "device", "completed"}, f"the migration is {status}"
        if status not in {"active", "completed"}:
            return None
        now = msgspec.convert(progress, QueryMigrate)
        return now if status == "completed" or now.ram.dirty_sync_count >= until_sync else None
