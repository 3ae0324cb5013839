"""The user's files, before any kernel sees them."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from fakekvm.exportcerts import export
from kvmenc.errors import InputError
from kvmenc.firmware import load_certificates

if TYPE_CHECKING:
    from pathlib import Path


def test_exported_files_are_read_as_they_are(tmp_path: Path) -> None:
    found = load_certificates(*export(tmp_path))
    assert [len(it) for it in (found.pdh, found.plat, found.amd)] == [2084, 3 * 2084, 2 * 1600]


def test_the_fakes_are_exported_from_a_shell_too(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", "-m", "fakekvm.exportcerts", str(tmp_path), "chip 7"]
    subprocess.run(command, check=True)
    by_shell = (tmp_path / "pdh.cert").read_bytes()
    assert by_shell == export(tmp_path, "chip 7")[0].read_bytes()
    assert by_shell != export(tmp_path)[0].read_bytes()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, r"--plat-cert .*plat\.cert: No such file"),
        (b"", r"--plat-cert .*plat\.cert: the file is empty"),
        (bytes(16385), r"--plat-cert .*plat\.cert: no certificate: it has more than 16384 bytes"),
    ],
)
def test_files_that_cannot_be_certificates_are_named(
    tmp_path: Path, content: bytes | None, says: str
) -> None:
    pdh, plat, amd = export(tmp_path)
    plat.unlink()
    if content is not None:
        plat.write_bytes(content)
    with pytest.raises(InputError, match=says):
        load_certificates(pdh, plat, amd)


def test_a_folder_is_no_certificate(tmp_path: Path) -> None:
    _pdh, plat, amd = export(tmp_path)
    with pytest.raises(InputError, match=r"--pdh .*: Is a directory"):
        load_certificates(tmp_path, plat, amd)
