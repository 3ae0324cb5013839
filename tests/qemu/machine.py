"""A real QEMU under test: what it is asked, and what it is made to do."""

from __future__ import annotations

import math
import os
import re
import time
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from kvmenc.capture import BlockFacts, Capture
from kvmenc.plan import profile_for
from kvmenc.plan.result import QueryMigrate
from kvmenc.qemu.text import QemuText
from kvmenc.qemu.trace import parse_trace
from tests.qemu.guest import MAILBOX_GPA, PAGE, RAM_PAGES, Stamper
from tests.qemu.inside import GuestMemory
from tests.qemu.process import Qemu
from tests.qemu.qtest import Qtest
from tests.qemu.setup import Setup

if TYPE_CHECKING:
    from pathlib import Path

    from kvmenc.memory.slots import MemSlot
    from kvmenc.plan import Parameters, Profile
    from tests.qemu.guest import Guest

_BLOCK = re.compile(r"^ *(\S+) +4 KiB +0x\w+ +(0x\w+) ", re.MULTILINE)
_AT = re.compile(r"Host virtual address for 0x\w+ \((\S+)\) is (0x\w+)")
# It takes a minute at most, and a busy machine some more.
_LONGEST_MEASURE_S = 90.0


class _Status(msgspec.Struct):
    status: str


class _DirtyRate(msgspec.Struct):
    status: str
    rate: int = msgspec.field(name="dirty-rate", default=-1)


def _status(progress: object) -> str:
    return msgspec.convert(progress, _Status).status


def _logged_slots(log: Path) -> list[MemSlot]:
    """Of QEMU's trace; none while it has not traced any."""
    text = log.read_text() if log.exists() else ""
    text = text[: text.rfind("\n") + 1]
    if not text:
        return []
    return [it.slot for it in parse_trace(QemuText(str(log), text)) if it.slot.log_dirty]


class Place(NamedTuple):
    """Where a guest address lies in QEMU."""

    block: str
    host_addr: int


class Machine(Qemu):
    """QEMU with no devices but the board's; a context manager that ends it.

    Args:
        folder: made for the sockets, the BIOS and the logs.
        guest: what runs in it.
        board: QEMU's machine type.
        setup: how it is started else.

    Attributes:
        guest: as given.
    """

    def __init__(
        self, folder: Path, guest: Guest, board: str = "pc", setup: Setup | None = None
    ) -> None:
        self.guest = guest
        self._board = board
        self._setup = setup or Setup()
        super().__init__(folder, guest.image, board, self._setup)

    def _start(self, bios: bytes, setup: Setup, arguments: list[str]) -> None:
        super()._start(bios, setup, arguments)
        if not setup.incoming:
            self.wait_for("the guest to fill its memory", self._is_filled)

    def _is_filled(self) -> bool:
        word = self.monitor(f"xp /1wx {self.guest.last_filled_gpa:#x}").split()[-1]
        return int(word, 16) != 0

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

    @cached_property
    def vcpu_tids(self) -> list[int]:
        vcpus = msgspec.convert(self.command("query-cpus-fast"), list[dict[str, Any]])
        return [vcpu["thread-id"] for vcpu in vcpus]

    def give_way(self) -> None:
        """From now on the guest runs only while nobody else wants the CPU."""
        for tid in self.vcpu_tids:
            os.sched_setscheduler(tid, os.SCHED_IDLE, os.sched_param(0))

    @cached_property
    def memory(self) -> GuestMemory:
        """The guest's, read and written without asking QEMU."""
        ram = self.find(0)
        assert ram is not None
        memory = GuestMemory(self.pid, ram.host_addr)
        self._cleanup.callback(memory.close)
        return memory

    @cached_property
    def device(self) -> Qtest:
        """Writes memory as a device does."""
        return self._cleanup.enter_context(Qtest(self.device_socket()))

    def device_socket(self) -> Path:
        """What a :class:`Qtest` connects to; only one may, once."""
        path = self._folder / "qtest"
        address = {"type": "unix", "data": {"path": str(path)}}
        backend = {"type": "socket", "data": {"addr": address, "server": True, "wait": False}}
        self.command("chardev-add", id="qtest", backend=backend)
        self.command("object-add", qom_type="qtest", id="qtest", chardev="qtest", log="/dev/null")
        return path

    def version(self) -> str:
        """Such as 7.2.22."""
        answer = msgspec.convert(self.command("query-version"), dict[str, Any])
        return ".".join(str(answer["qemu"][part]) for part in ("major", "minor", "micro"))

    @property
    def profile(self) -> Profile:
        """The rules by which it migrates."""
        return profile_for(self.version())

    def stamp(self, number: int) -> None:
        """Have a Stamper write a number, other than the last, to its pages; wait until it has."""
        assert isinstance(self.guest.writer, Stamper)
        last_gpa = self.guest.writer.gfns[-1] * PAGE
        self.memory.write(MAILBOX_GPA, number.to_bytes(4, "little"))
        self.wait_for("the stamping", lambda: self.memory.word(last_gpa) == number)

    def dump(self, file: Path) -> Path:
        """Save the guest's first 64 MiB, as it sees them; the guest must be stopped."""
        self.command("pmemsave", val=0, size=RAM_PAGES * PAGE, filename=str(file))
        return file

    def log_dirty(self, seconds: int = 60) -> list[MemSlot]:
        """Have QEMU measure the dirty rate by bitmap, which turns KVM's dirty log on.

        Returns:
            the memslots, as they are logged now; every bit has been cleared since.
        """
        log = self._folder / f"slots-{time.monotonic_ns()}"
        self.trace_to(log, "kvm_set_user_memory")
        self.command("calc-dirty-rate", calc_time=seconds, mode="dirty-bitmap")
        self.wait_for("the dirty log", lambda: _logged_slots(log))
        # QEMU holds its big lock from the first slot logged until all bits are cleared; so when it
        # has answered a monitor's command, that is over.
        self.monitor("trace-event kvm_set_user_memory off")
        return _logged_slots(log)

    def dirty_rate_mib_per_s(self) -> int:
        """Wait until QEMU has measured; its result."""
        return self.wait_for("the dirty rate", self._measured_rate, _LONGEST_MEASURE_S).rate

    def _measured_rate(self) -> _DirtyRate | None:
        answer = msgspec.convert(self.command("query-dirty-rate"), _DirtyRate)
        return answer if answer.status == "measured" else None

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
        """Migrate into a shell command that reads the stream; as ``migrate_to``."""
        return self.migrate_to(f"exec:{command}", parameters, until_sync)

    def migrate_to(
        self, uri: str, parameters: Parameters, until_sync: float = math.inf
    ) -> QueryMigrate:
        """Migrate; returns what query-migrate says at the end.

        Args:
            uri: such as another machine's ``listen()``; a sandboxed QEMU dies of ``exec:``.
            parameters: max-bandwidth and downtime-limit.
            until_sync: give up at the sync of this number.
        """
        self.start_migration(uri, parameters)
        end = self.wait_for("the migration", lambda: self._end_of_migration(until_sync))
        if end.status == "active":
            self.command("migrate_cancel")
            self.wait_for(
                "the cancelling", lambda: _status(self.command("query-migrate")) == "cancelled"
            )
        return end

    def save(self, file: Path, parameters: Parameters) -> None:
        """Migrate into a file."""
        self.migrate(parameters, f"cat >{file}.part && mv {file}.part {file}")
        self.wait_for("the whole stream", file.exists)

    def start_migration(self, uri: str, parameters: Parameters) -> None:
        self.command(
            "migrate-set-parameters",
            max_bandwidth=int(parameters.max_bandwidth_bytes_per_s),
            downtime_limit=int(parameters.downtime_limit_ms),
        )
        auto_converge = {"capability": "auto-converge", "state": parameters.auto_converge}
        self.command("migrate-set-capabilities", capabilities=[auto_converge])
        self.command("migrate", uri=uri)

    def _end_of_migration(self, until_sync: float) -> QueryMigrate | None:
        progress = self.command("query-migrate")
        status = _status(progress)
        assert status in {"setup", "active", "device", "completed"}, f"the migration is {status}"
        if status not in {"active", "completed"}:
            return None
        now = msgspec.convert(progress, QueryMigrate)
        return now if status == "completed" or now.ram.dirty_sync_count >= until_sync else None

    def twin(self, folder: Path, netns: str | None = None) -> Machine:
        """Another of the same kind, into which this one can migrate; in a namespace, if given."""
        netns = self._setup.netns if netns is None else netns
        setup = replace(self._setup, incoming=True, netns=netns)
        return Machine(folder, self.guest, self._board, setup)

    def listen(self, host: str = "127.0.0.1") -> str:
        """Let a migration come by TCP; returns its URI."""
        self.command("migrate-incoming", uri=f"tcp:{host}:0")
        progress = msgspec.convert(self.command("query-migrate"), dict[str, Any])
        [address] = progress["socket-address"]
        return f"tcp:{address['host']}:{address['port']}"

    def load(self, file: Path) -> None:
        """Have a saved migration stream come in; wait until it has."""
        self.command("migrate-incoming", uri=f"exec:cat {file}")
        self.wait_for_arrival()

    def wait_for_arrival(self) -> None:
        """Wait until what came in is complete; the guest is stopped then."""
        self.wait_for("the arrival", lambda: self.run_state() not in {"inmigrate", "prelaunch"})
        assert self.run_state() == "paused"

    def run_state(self) -> str:
        return _status(self.command("query-status"))
