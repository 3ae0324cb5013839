"""The QMP client against sockets that are no QEMU, or one that goes wrong."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from kvmenc.errors import HostError, InputError
from kvmenc.qemu.live import read_layout
from kvmenc.qemu.monitor import CommandError
from kvmenc.qemu.qmp import Qmp
from tests.qemu_text.servers import GREETING_LINE, Refusal, serving
from tests.qemu_text.texts import mtree, ramblock

if TYPE_CHECKING:
    from pathlib import Path

BLOCKS = ramblock(("ram", 1 << 20, 0)).content
AT_HOME = "Host virtual address for 0x0 (ram) is 0x7f0000000000\r\n"


def views(last: int) -> str:
    return mtree(f"0-{last:x} ram ram KVM").content


def ask(path: Path, *answers: object) -> list[tuple[int, int, int]]:
    """The layout of a QEMU that answers so; its slots."""
    with (
        serving(path, GREETING_LINE, [{}, *answers]),
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


def test_a_command_is_sent_with_qmps_own_names_and_its_answer_comes_back(tmp_path: Path) -> None:
    with (
        serving(tmp_path / "qmp", GREETING_LINE, [{}, {"answer": [1, 2]}]),
        Qmp(tmp_path / "qmp", patience_s=5) as qmp,
    ):
        assert qmp.execute("qom-get", path="/machine", property="type") == {"answer": [1, 2]}


def test_an_error_of_qemu_is_told_apart_and_named(tmp_path: Path) -> None:
    refusal = Refusal("the dirty rate is\nalready being measured.", "SomeClass")
    with (
        serving(tmp_path / "qmp", GREETING_LINE, [{}, refusal]),
        Qmp(tmp_path / "qmp", patience_s=5) as qmp,
        pytest.raises(CommandError) as caught,
    ):
        qmp.execute("calc-dirty-rate", calc_time=1)
    assert caught.value.error_class == "SomeClass"
    assert caught.value.description == "the dirty rate is already being measured."
    assert str(caught.value) == (
        f"{tmp_path}/qmp: calc-dirty-rate: QEMU refuses: the dirty rate is already being measured."
    )


def test_a_qemu_that_has_ended_is_one_line_for_each_command_after(tmp_path: Path) -> None:
    with (
        serving(tmp_path / "qmp", GREETING_LINE, [{}, "running"]),
        Qmp(tmp_path / "qmp", patience_s=5) as qmp,
    ):
        assert qmp.execute("query-status") == "running"
        for _ in range(3):
            with pytest.raises(HostError, match=r"qmp: query-status: .") as caught:
                qmp.execute("query-status")
            assert "\n" not in str(caught.value)
            assert not isinstance(caught.value, CommandError)


def test_a_qemu_that_ends_just_when_the_session_begins_is_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with (
        serving(tmp_path / "qmp", GREETING_LINE, [{}]),
        pytest.raises(HostError, match=r"qmp: (connecting by QMP|query-status): ."),
        Qmp(tmp_path / "qmp", patience_s=5) as qmp,
    ):
        qmp.execute("query-status")
    assert capfd.readouterr().err == ""


def test_an_answer_that_never_comes_is_waited_for_so_long(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "silent"))
        silent.listen()
        with pytest.raises(HostError, match=r"no answer \(connecting by QMP\) within 0\.2 s"):
            Qmp(tmp_path / "silent", patience_s=0.2)
