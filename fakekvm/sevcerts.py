"""The certificates of a fake chip, and the secret that two chips share.

They have the frames and sizes of AMD's (sev-tool, src/sevcert.h and amdcert.h), but keys and
signatures of their own: anybody could forge one. ``exportcerts`` writes them to files.
"""

from __future__ import annotations

import hashlib
import struct
from typing import NamedTuple

from fakekvm.sevcrypt import derive

__all__ = ["Chip", "Files", "are_certified", "public_key"]

_PRIME = 2**255 - 19
_KEY_BYTES = 32

_SEV_HEAD = struct.Struct("<IBBxxII")  # version, api, key's usage and algorithm
_SEV_CERT = struct.Struct("<16s1028sII512sII512s")  # head, key, 2 x (signer's usage, algo, sig)
_AMD_CERT = struct.Struct("<I16s16sI16sII512s512s512s")

_ARK, _ASK, _OCA, _PEK, _PDH, _CEK, _INVALID = 0x0, 0x13, 0x1001, 0x1002, 0x1003, 0x1004, 0x1000
_ALGORITHM = 0x2  # what AMD calls ECDSA with SHA-256
_ROOT = "AMD, not"


class Files(NamedTuple):
    """What an owner exports: certificates by who vouches for what."""

    pdh: bytes
    plat_certs: bytes
    amd_certs: bytes


class Chip:
    """A platform of a given name, with its keys."""

    def __init__(self, name: str) -> None:
        seed = hashlib.blake2b(name.encode()).digest()
        self.secret = derive(seed, "secret", _KEY_BYTES)
        self._exponent = int.from_bytes(derive(seed, "PDH", _KEY_BYTES), "little")

    def certificates(self) -> Files:
        """Its own, up to the root that all fake chips share."""
        ark, ask = _key(_ROOT.encode(), "ARK"), _key(_ROOT.encode(), "ASK")
        cek, oca, pek = (_key(self.secret, name) for name in ("CEK", "OCA", "PEK"))
        pdh = pow(2, self._exponent, _PRIME).to_bytes(_KEY_BYTES, "little")
        plat = (
            _sev_cert(_PEK, pek, (_OCA, oca), (_CEK, cek)),
            _sev_cert(_OCA, oca, (_OCA, oca)),
            _sev_cert(_CEK, cek, (_ASK, ask)),
        )
        amd = _amd_cert(_ASK, ask, ark), _amd_cert(_ARK, ark, ark)
        return Files(_sev_cert(_PDH, pdh, (_PEK, pek)), b"".join(plat), b"".join(amd))

    def shared_secret(self, other: bytes) -> bytes:
        """What only this chip and the one with the public key ``other`` can compute."""
        value = pow(int.from_bytes(other, "little"), self._exponent, _PRIME)
        return value.to_bytes(_KEY_BYTES, "little")


def public_key(pdh: bytes) -> bytes | None:
    """The key in a PDH certificate; None if it is none."""
    if len(pdh) != _SEV_CERT.size or _usage(pdh) != _PDH:
        return None
    key: bytes = _SEV_CERT.unpack(pdh)[1][:_KEY_BYTES]
    return key


def are_certified(files: Files) -> bool:
    """Whether each certificate is signed by the next, up to the root."""
    size = _SEV_CERT.size
    if len(files.plat_certs) != 3 * size or len(files.amd_certs) != 2 * _AMD_CERT.size:
        return False
    ask, ark = (files.amd_certs[at : at + _AMD_CERT.size] for at in (0, _AMD_CERT.size))
    pek, oca, cek = (files.plat_certs[at : at + size] for at in (0, size, 2 * size))
    chain = (
        _is_sev(files.pdh, _PDH, pek)
        and _is_sev(pek, _PEK, oca, cek)
        and _is_sev(oca, _OCA, oca)
        and _is_sev(cek, _CEK, ask)
    )
    return chain and _is_amd(ask, _ASK, ark) and _is_amd(ark, _ARK, ark)


def _key(secret: bytes, name: str) -> bytes:
    return derive(derive(secret, name), "public", _KEY_BYTES)


def _signature(signer: bytes, signed: bytes) -> bytes:
    return hashlib.blake2b(signed, key=signer).digest()


def _sev_cert(usage: int, key: bytes, *signers: tuple[int, bytes]) -> bytes:
    head = _SEV_HEAD.pack(1, 0, 0, usage, _ALGORITHM)
    signed = head + key.ljust(1028, b"\0")
    signatures: list[int | bytes] = []
    for signer_usage, signer in signers:
        signatures += [signer_usage, _ALGORITHM, _signature(signer, signed)]
    while len(signatures) < 6:
        signatures += [_INVALID, 0, b""]
    return _SEV_CERT.pack(head, key, *signatures)


def _amd_cert(usage: int, key: bytes, signer: bytes) -> bytes:
    head = (1, key[:16], signer[:16], usage, b"", 4096, 4096)
    unsigned = _AMD_CERT.pack(*head, b"", key, b"")
    return _AMD_CERT.pack(*head, b"", key, _signature(signer, unsigned))


def _usage(sev_cert: bytes) -> int:
    return int(_SEV_HEAD.unpack_from(sev_cert)[3])


def _public(cert: bytes) -> bytes:
    at = 16 if len(cert) == _SEV_CERT.size else _AMD_CERT.size - 2 * 512
    return cert[at : at + _KEY_BYTES]


def _is_sev(cert: bytes, usage: int, *signers: bytes) -> bool:
    """Whether it is byte for byte what these signers would have signed."""
    if len(cert) != _SEV_CERT.size or _usage(cert) != usage:
        return False
    by = [(_signer_usage(signer), _public(signer)) for signer in signers]
    return cert == _sev_cert(usage, _public(cert), *by)


def _signer_usage(cert: bytes) -> int:
    return _usage(cert) if len(cert) == _SEV_CERT.size else _ASK


def _is_amd(cert: bytes, usage: int, signer: bytes) -> bool:
    # The root is what all chips hold in their fuses, not whatever is handed in.
    root = usage != _ARK or _public(cert) == _key(_ROOT.encode(), "ARK")
    return root and cert == _amd_cert(usage, _public(cert), _public(signer))
