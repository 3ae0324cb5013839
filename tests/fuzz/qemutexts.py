"""What a QEMU says, and virsh of it."""

from __future__ import annotations

import ctypes
import json
import os
import socket
import threading
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any
from unittest import mock

from kvmenc import procfs
from kvmenc.memory.slots import MemSlot
from kvmenc.migrate.parameters import QemuParameters
from kvmenc.qemu import facts
from kvmenc.qemu.dirtyrate import DirtyRate
from kvmenc.qemu.enclog import parse_enc_log
from kvmenc.qemu.join import from_mtree, from_trace
from kvmenc.qemu.live import read_layout
from kvmenc.qemu.monitor import ask
from kvmenc.qemu.mtree import parse_mtree
from kvmenc.qemu.qmp import Qmp
from kvmenc.qemu.ramblock import parse_ramblock
from kvmenc.qemu.slotids import traced_slots
from kvmenc.qemu.text import MAX_TEXT_BYTES, QemuText, read_text
from kvmenc.qemu.trace import parse_trace
from kvmenc.qemu.virsh import Virsh
from tests.fuzz.inputs import Parser
from tests.qemu_text.servers import GREETING_LINE, Refusal
from tests.qemu_text.test_facts import VERSION
from tests.qemu_text.texts import mtree, path_of, ramblock

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

__all__ = ["PARSERS", "TOLD", "answers"]

#: A file of text is read into a buffer of the most that it may have.
_MOST_TEXT_BYTES = MAX_TEXT_BYTES + (4 << 20)
_RAM = MemSlot(0, 0, 16, 0x7F0000000000)
_DISPLAY = MemSlot(1, 256, 16, 0x7E0000000000)


class _Machine:
    """The three texts of one machine, as they were parsed."""

    def __init__(self, name: str) -> None:
        self.texts = {kind: path_of(name, kind) for kind in _PARSE}
        self.parsed = {kind: _PARSE[kind](read_text(path)) for kind, path in self.texts.items()}


_PARSE: dict[str, Callable[[QemuText], Any]] = {
    "mtree": parse_mtree,
    "ramblock": parse_ramblock,
    "trace": parse_trace,
}


def _layout(kind: str, folder: Path) -> Parser:
    """One of three texts is broken, and joined with the others of a machine."""
    path, machines = folder / f"{kind}.txt", [_Machine(name) for name in ("microvm", "pc")]
    seeds = [it.texts[kind].read_bytes() for it in machines]

    def read(data: bytes) -> None:
        path.write_bytes(data)
        machine = machines[len(data) > sum(map(len, seeds)) // 2]
        found = machine.parsed | {kind: _PARSE[kind](read_text(path))}
        from_mtree(found["mtree"], found["ramblock"])
        from_trace(found["trace"], found["ramblock"], found["mtree"])

    return Parser(seeds, read, most_bytes=_MOST_TEXT_BYTES)


def _enc_log(_folder: Path) -> Parser:
    text = b"""\
# entries-in-buffer/entries-written: 40/41   #P:4
CPU 0/KVM-1234 [001] ..... 56.789: kvm_hypercall: nr 0xc a0 0x1000 a1 0x20 a2 0x10 a3 0x0
 CPU:2 [LOST 3 EVENTS]
kvm_set_user_memory AddrSpace#0 Slot#0 flags=0x4 gpa=0x0 size=0x64000 ua=0x7f0000000000 ret=0
1@2.3:kvm_convert_memory start 0x100000 size 0x10000 shared_to_private
1@2.4:kvm_convert_memory start 0x102000 size 0x1000 private_to_shared
"""
    slots = [_RAM, _DISPLAY]
    return Parser([text], lambda data: parse_enc_log(data.splitlines(keepends=True), slots))


def _slot_ids(_folder: Path) -> Parser:
    lines = (
        b"kvm_set_user_memory Slot#7 flags=0x1 gpa=0x0 size=0x10000 ua=0x7f0000000000 ret=0\n"
        b"kvm_clear_dirty_log slot#3 start 0x0 size 0x10\n"
    )

    def read(data: bytes) -> None:
        traced_slots("qmp", data.decode(errors="replace").split("\n")[:-1], [_RAM, _DISPLAY])

    return Parser([lines, lines * 3], read)


class _ToldVirsh(Virsh):
    """What virsh prints for each question: a line of the input for each.

    Args:
        data: the lines.
        questions: commands, or arguments, or the first word of one, in the order of the lines.
    """

    def __init__(self, data: bytes, questions: Sequence[str]) -> None:
        super().__init__("told")
        self._lines, self._questions = data.split(b"\n"), questions

    def _run(self, request: str, _where: str) -> bytes:
        asked = json.loads(request)
        words = asked["execute"], *asked["arguments"].values()
        named = {*words, *(it.partition(" ")[0] for it in words)}
        number = next(n for n, it in enumerate(self._questions) if it in named)
        return self._lines[number] if number < len(self._lines) else b""


_MAPPED = ctypes.create_string_buffer(1)
#: A QEMU's answers, by command or the end of its arguments: its guest is this process.
TOLD: dict[str, object] = {
    "query-kvm": {"enabled": True},
    "query-version": VERSION,
    "query-status": {"status": "running"},
    "query-migrate": {},
    "query-cpus-fast": [{"thread-id": os.getpid(), "target": "x86_64"}],
    "confidential-guest-support": "/objects/sev0",
    "type": "sev-guest",
    "policy": 5,
    "query-sev": {"enabled": True, "policy": 5},
    "query-migrate-parameters": {"max-bandwidth": 134217728, "downtime-limit": 300},
    "query-migrate-capabilities": [{"capability": "auto-converge", "state": False}],
    "query-dirty-rate": {"status": "measured", "mode": "dirty-bitmap", "dirty-rate": 7},
    "gpa2hva 0x0": f"Host virtual address for 0x0 (x) is {ctypes.addressof(_MAPPED):#x}\r\n",
}


def answers(told: Mapping[str, object]) -> bytes:
    """A line for each of ``TOLD``'s questions."""
    lines = [{"error" if isinstance(it, Refusal) else "return": it} for it in told.values()]
    return b"\n".join(json.dumps(it).encode() for it in lines)


def _qmp(_folder: Path) -> Parser:
    """All that is asked of a QEMU before a migration, and the rate that it measured.

    Its process and its guest's memory are this process, and its VM what descriptor 0 is.
    """
    old = TOLD | {"confidential-guest-support": "", "type": Refusal("no")}
    vm = procfs.fd_links(os.getpid())[0]

    def read(data: bytes) -> None:
        with _ToldVirsh(data, list(TOLD)) as virsh, mock.patch.object(facts, "_KVM_VM", vm):
            QemuParameters.read(virsh)
            DirtyRate(virsh).rate()
            found = facts.read_facts(virsh)
        assert f"{found.release}{found.machine}{found.vm_status}".isprintable(), "it is shown"

    return Parser([answers(TOLD), answers(old)], read)


def _monitor(_folder: Path) -> Parser:
    """A layout that is asked for: the human monitor's text within an answer.

    QEMU before 8.0 tells where a RAMBlock lies only if it is asked.
    """
    blocks = ramblock(("a", 0x10000, 0x7F0000000000), ("b/c", 0x2000, 0x7F0000100000), new=True)
    where = "Host virtual address for 0x0 (a) is 0x7f0000000000"
    views = mtree("0-7fff ram a", "8000-9fff rom c", "a000-afff i/o d")
    told = {"info mtree -f": views.content, "info ramblock": blocks.content, "gpa2hva": where}
    old = ramblock(("a", 0x10000, 0)).content
    alone = {"info mtree -f": mtree("0-7fff ram a").content, "info ramblock": old, "gpa2hva": where}

    def read(data: bytes) -> None:
        with _ToldVirsh(data, list(told)) as virsh:
            read_layout(virsh)

    return Parser([answers(told), answers(alone)], read)


def _socket(folder: Path) -> Parser:
    """A line of the input for each that is sent to a socket, greeting and all; then it closes."""
    path = folder / "qmp"
    answer = b'{"return": {"status": "running"}, "id": "__qmp#00000"}'
    sound = b"\n".join([GREETING_LINE.strip(), b'{"return": {}}', answer])

    def read(data: bytes) -> None:
        path.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
            server.listen()
            thread = threading.Thread(target=_serve, args=(server, data))
            thread.start()
            try:
                with Qmp(path, 0.5) as qmp:
                    ask(qmp, dict, "query-status")
            finally:
                thread.join()

    return Parser([sound], read, share=0.02)


def _serve(server: socket.socket, data: bytes) -> None:
    connection, _ = server.accept()
    with connection, suppress(OSError):
        for line in data.split(b"\n"):
            connection.sendall(line + b"\n")
            if not connection.recv(65536):
                break


PARSERS: dict[str, Callable[[Path], Parser]] = {
    "info mtree": partial(_layout, "mtree"),
    "info ramblock": partial(_layout, "ramblock"),
    "slot trace": partial(_layout, "trace"),
    "enc log": _enc_log,
    "slot ids": _slot_ids,
    "QMP answers": _qmp,
    "monitor's text": _monitor,
    "QMP socket": _socket,
}
