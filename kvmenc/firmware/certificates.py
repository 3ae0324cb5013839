"""The certificates that a guest is sent under: files that the user exports.

The platform that is to receive vouches for itself with a chain: its PDH key, which sessions are
agreed with, is signed by the platform's keys (``plat``), and these by AMD's (``amd``). The firmware
of the sender checks the chain; here only what the kernel would refuse is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kvmenc.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Certificates", "load_certificates"]

# Linux v6.12, include/linux/psp-sev.h, SEV_FW_BLOB_MAX_SIZE
_MAX_BYTES = 0x4000


@dataclass(frozen=True, slots=True)
class Certificates:
    """Of the platform that is to receive.

    Attributes:
        pdh: its PDH certificate.
        plat: PEK, OCA and CEK certificates.
        amd: ASK and ARK certificates.
    """

    pdh: bytes
    plat: bytes
    amd: bytes


def load_certificates(pdh: Path, plat: Path, amd: Path) -> Certificates:
    """Read the three files.

    Raises:
        InputError: one cannot be read, is empty, or is larger than the kernel takes.
    """
    return Certificates(_load("--pdh", pdh), _load("--plat-cert", plat), _load("--amd-cert", amd))


def _load(option: str, path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise InputError(f"{option} {path}: {error.strerror}") from error
    if not content:
        raise InputError(f"{option} {path}: the file is empty")
    if len(content) > _MAX_BYTES:
        raise InputError(f"{option} {path}: no certificate: it has more than {_MAX_BYTES} bytes")
    return content
