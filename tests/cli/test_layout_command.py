"""``kvmenc layout`` on saved text, and on sockets that are no QEMU."""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from kvmenc import cli
from tests.cli.test_root import here, kvmenc
from tests.qemu_text.texts import path_of
from tests.schemas.validator import faults

if TYPE_CHECKING:
    from pathlib import Path

PC = [f"--mtree={path_of('pc', 'mtree')}", f"--ramblock={path_of('pc', 'ramblock')}"]


def test_json_of_saved_text_and_its_trace() -> None:
    result = kvmenc("layout", *PC, f"--trace={path_of('pc', 'trace')}", "--json")
    assert (result.returncode, result.stderr) == (0, "")
    report = json.loads(result.stdout)
    assert report["schema"] == "kvmenc.layout/1"
    assert not faults(report)
    assert report["page_size"] == 4096
    assert report["pieces"][1] == {
        "as_id": 0,
        "slot_id": 2,
        "base_gfn": 0xC0,
        "npages": 65344,
        "block": "pc.ram",
        "block_page": 192,
        "host_addr": 0x7F4843EC0000,
        "readonly": False,
        "log_dirty": False,
        "guest_memfd": False,
        "aliased": False,
    }
    assert report["blocks"][1]["override"] == "shared"
    assert "slot 0, slot 2 without dirty log" in report["warnings"][0]


def test_what_the_mtree_does_not_tell_is_null() -> None:
    result = here("layout", *PC, "--json")
    piece = json.loads(result.stdout)["pieces"][0]
    assert {key for key, value in piece.items() if value is None} == {
        "slot_id", "log_dirty", "guest_memfd", "host_addr",
    }  # fmt: skip


@pytest.mark.parametrize("machine", ["pc", "q35", "microvm"])
def test_the_table_fits_80_columns_and_names_every_block(machine: str) -> None:
    files = [f"--{kind}={path_of(machine, kind)}" for kind in ("mtree", "ramblock", "trace")]
    result = CliRunner().invoke(cli.root, ["layout", *files])
    assert result.exit_code == 0
    assert max(map(len, result.stdout.splitlines()[1:])) <= 80
    assert "/rom@etc/acpi/tables" in result.stdout
    assert "taken for shared" in result.stdout
    assert "do not tell host addresses" not in result.stdout


@pytest.mark.parametrize(
    "options",
    [
        [],
        PC[:1],
        PC[1:],
        [*PC, "--qmp=/x"],
        ["--trace=/x"],
        ["--qmp=/x", "--trace=/x"],
        ["--qmp=/x", "--domain=x"],
        [*PC, "--domain=x"],
    ],
)
def test_options_that_do_not_go_together_are_exit_status_2(options: list[str]) -> None:
    result = CliRunner().invoke(cli.root, ["layout", *options])
    assert result.exit_code == 2
    assert "--qmp" in result.stderr


def test_a_bad_file_is_exit_status_4_and_one_line(tmp_path: Path) -> None:
    mtree, ramblock = (it.split("=")[1] for it in PC)
    for files in (
        ["--mtree", ramblock, "--ramblock", ramblock],
        ["--mtree", mtree, "--ramblock", mtree],
        ["--mtree", mtree, "--ramblock", str(tmp_path / "absent")],
    ):
        result = here("layout", *files)
        assert (result.returncode, result.stdout) == (4, "")
        assert result.stderr.count("\n") == 1


def test_a_socket_on_which_nobody_listens_is_exit_status_3_and_one_line(tmp_path: Path) -> None:
    deaf = tmp_path / "deaf"
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(deaf))
    for path, why in ((deaf, "Connection refused"), (tmp_path / "absent", "No such file")):
        result = here("layout", "--qmp", str(path))
        assert (result.returncode, result.stdout) == (3, "")
        assert result.stderr.count("\n") == 1
        assert why in result.stderr
