"""The QMP client against sockets that are no QEMU, or one that goes wrong."""

from __future__ import annotations

import json
import socket
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from kvmenc.errors import HostError, InputError
from kvmenc.qemu.qmp import Qmp, read_layout
from tests.qemu_text.texts import mtree, ramblock

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

GREETING = {
    "QMP": {
        "version": {"qemu": {"major": 7, "minor": 2, "micro": 22}, "package": ""},
        "capabilities": [],
    }
}
BLOCKS = ramblock(("ram", 1 << 20, 0)).content
AT_HOME = "Host virtual address for 0x0 (ram) is 0x7f0000000000\r\n"


def views(last: int) -> str:
    return mtree(f"0-{last:x} ram ram KVM").content


@contextmanager
def serving(path: Path, greeting: bytes, answers: Sequence[object] = ()) -> Iterator[None]:
    """A QMP server for one client, that closes when it has no more answers."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()

        def run() -> None:
            connection, _ = server.accept()
            with connection:
                connection.sendall(greeting)
                for answer in answers:
                    if not (command := connection.recv(65536)):
                        return
                    reply = {"return": answer, "id": json.loads(command).get("id")}
                    connection.sendall(json.dumps(reply).encode() + b"\r\n")

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield
        finally:
            thread.join(10)
            assert not thread.is_alive()


def ask(path: Path, *answers: object) -> list[tuple[int, int, int]]:
    """The layout of a QEMU that answers so; its slots."""
    with (
        serving(path, json.dumps(GREETING).encode() + b"\r\n", [{}, *answers]),
        Qmp(path, patience_s=5) as qmp,
    ):
        slots = read_layout(qmp).layout.slots
        return [(slot.base_gfn, slot.npages, slot.userspace_addr) for slot in slots]


def test_a_layout_is_asked_for_with_the_address_of_every_block(tmp_path: Path) -> None:
    same = (views(0xFFFFF), BLOCKS)
    assert ask(tmp_path / "qmp", *same, AT_HOME, *same) == [(0, 256, 0x7F0000000000)]


def test_a_layout_that_changes_meanwhile_is_asked_for_again(tmp_path: Path) -> None:
    old, new = (views(0xFFFFF), BLOCKS), (views(0xFFF), BLOCKS)
    answers = [*old, AT_HOME, new[0], *new, AT_HOME, *new]
    assert ask(tmp_path / "qmp", *answers) == [(0, 1, 0x7F0000000000)]


def test_blocks_that_change_meanwhile_are_asked_for_again(tmp_path: Path) -> None:
    same = (views(0xFFFFF), BLOCKS)
    old = ramblock(("ram", 1 << 20, 0), ("gone", 1 << 20, 0)).content
    moved = AT_HOME.replace("0x7f", "0x7e")
    answers = [same[0], old, AT_HOME, *same, *same, moved, *same]
    assert ask(tmp_path / "qmp", *answers) == [(0, 256, 0x7E0000000000)]


def test_a_layout_that_goes_wrong_only_because_it_changes_is_asked_for_again(
    tmp_path: Path,
) -> None:
    new = (views(0xFFF), BLOCKS)
    gone = "No memory is mapped at address 0x0\r\n"
    answers = [views(0xFFFFF), BLOCKS, gone, new[0], *new, AT_HOME, *new]
    assert ask(tmp_path / "qmp", *answers) == [(0, 1, 0x7F0000000000)]


def test_a_layout_that_never_holds_still_is_given_up(tmp_path: Path) -> None:
    answers = [it for n in range(5) for it in (views(0xFFFFF), BLOCKS, AT_HOME, views(0xFFF))]
    with pytest.raises(HostError, match="does not hold still"):
        ask(tmp_path / "qmp", *answers)


def test_an_answer_of_another_format_is_named_with_the_command(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="qmp: info mtree -f, line 1: not the output"):
        ask(tmp_path / "qmp", "unknown command\r\n", BLOCKS, "unknown command\r\n")


def test_an_answer_that_is_no_text(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="info mtree -f: QEMU answers with no text"):
        ask(tmp_path / "qmp", {"not": "text"})


def test_a_qemu_that_closes_midway_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="info ramblock: ") as caught:
        ask(tmp_path / "qmp", views(0xFFFFF))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("greeting", [b"", b"SSH-2.0-OpenSSH_9.2\r\n", b'{"hello": 1}\r\n'])
def test_what_is_no_qmp_is_one_line(
    tmp_path: Path, greeting: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    with (
        serving(tmp_path / "qmp", greeting),
        pytest.raises(HostError, match=r"qmp: connecting by QMP: .") as caught,
    ):
        Qmp(tmp_path / "qmp", patience_s=5)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


def test_a_socket_that_serves_somebody_else_is_said_to_be_busy(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as busy:
        busy.bind(str(tmp_path / "busy"))
        busy.listen()
        with pytest.raises(HostError, match=r"within 0\.1 s; .* is another connected"):
            Qmp(tmp_path / "busy", patience_s=0.1)
