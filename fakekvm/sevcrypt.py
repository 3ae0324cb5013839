"""What the fake firmware encrypts with: SHAKE-128 as a stream, keyed BLAKE2b as a MAC.

A fake: it keeps the meaning of AMD's scheme (a key for each guest and address; transport keys that
only the two platforms can derive; a packet that was changed is refused) and none of its strength.
All keys follow from names, so that a run can be repeated. Sizes of blobs are AMD's (sev-tool,
src/sevapi.h: sev_session_buf, sev_hdr_buf).
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from typing import NamedTuple

import numpy as np

from fakekvm.decode import PAGE_BYTES

__all__ = ["HDR_BYTES", "SESSION_BYTES", "MemoryKey", "TransportKeys", "derive"]

KEY_BYTES = 16
MAC_BYTES = 32

_HDR = struct.Struct("<I16s32s")  # flags, iv, mac
HDR_BYTES = _HDR.size
_SESSION = struct.Struct("<16s32s16s32s32s")  # nonce, wrapped keys, iv, their mac, policy's mac
SESSION_BYTES = _SESSION.size


def derive(secret: bytes, purpose: str, size: int = KEY_BYTES) -> bytes:
    """A key of at most 64 bytes for one purpose."""
    return hashlib.blake2b(purpose.encode(), key=secret, digest_size=size).digest()


def _mac(key: bytes, *parts: bytes) -> bytes:
    return hashlib.blake2b(b"".join(parts), key=key, digest_size=MAC_BYTES).digest()


def _xor(data: bytes, stream: bytes) -> bytes:
    return (np.frombuffer(data, np.uint8) ^ np.frombuffer(stream, np.uint8)).tobytes()


def _stream(key: bytes, nonce: bytes, size: int) -> bytes:
    return hashlib.shake_128(key + nonce).digest(size)


class MemoryKey:
    """The key that a guest's private pages lie under. It depends on where a page lies."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def crypt(self, address: int, data: bytes) -> bytes:
        """Encrypt or decrypt ``data`` that lies at ``address``: the same operation."""
        first = address % PAGE_BYTES
        size = first + len(data)
        pages = range(address - first, address + len(data), PAGE_BYTES)
        stream = b"".join(_stream(self._key, struct.pack("<Q", it), PAGE_BYTES) for it in pages)
        return _xor(data, stream[first:size])


class TransportKeys(NamedTuple):
    """TEK and TIK: what packets are encrypted and authenticated with."""

    encryption: bytes
    integrity: bytes

    def wrap(self, master: bytes, nonce: bytes, policy: int) -> bytes:
        """The session blob, for who has the same ``master``."""
        kek, kik = _wrapping_keys(master, nonce)
        iv = derive(nonce, "wrap iv")
        wrapped = _xor(self.encryption + self.integrity, _stream(kek, iv, 2 * KEY_BYTES))
        policy_mac = _mac(self.integrity, struct.pack("<I", policy))
        return _SESSION.pack(nonce, wrapped, iv, _mac(kik, wrapped), policy_mac)

    @classmethod
    def unwrap(cls, master: bytes, blob: bytes, policy: int) -> TransportKeys | None:
        """What ``wrap`` wrapped; None if anything was changed."""
        nonce, wrapped, iv, mac, policy_mac = _SESSION.unpack(blob[:SESSION_BYTES])
        kek, kik = _wrapping_keys(master, nonce)
        keys = _xor(wrapped, _stream(kek, iv, 2 * KEY_BYTES))
        found = cls(keys[:KEY_BYTES], keys[KEY_BYTES:])
        same_policy = _mac(found.integrity, struct.pack("<I", policy))
        whole = hmac.compare_digest(_mac(kik, wrapped), mac)
        return found if whole and hmac.compare_digest(same_policy, policy_mac) else None

    def seal(self, number: int, data: bytes, trans_len: int) -> tuple[bytes, bytes]:
        """Header and contents of packet ``number``; the contents padded with zeros."""
        iv = struct.pack("<QQ", number, 0)
        sealed = _xor(data, _stream(self.encryption, iv, len(data)))
        trans = sealed.ljust(trans_len, b"\0")
        return _HDR.pack(0, iv, self._packet_mac(0, iv, len(data), trans)), trans

    def open(self, hdr: bytes, trans: bytes, size: int) -> bytes | None:
        """The ``size`` bytes that were sealed; None if anything was changed."""
        flags, iv, mac = _HDR.unpack(hdr[:HDR_BYTES])
        if not hmac.compare_digest(self._packet_mac(flags, iv, size, trans), mac):
            return None
        return _xor(trans[:size], _stream(self.encryption, iv, size))

    def _packet_mac(self, flags: int, iv: bytes, size: int, trans: bytes) -> bytes:
        """Not over an order or an address: packets may come in any order, to any page."""
        lengths = struct.pack("<III", flags, size, len(trans))
        return _mac(self.integrity, b"\2", lengths, iv, trans)


def _wrapping_keys(master: bytes, nonce: bytes) -> tuple[bytes, bytes]:
    return derive(master, f"kek {nonce.hex()}"), derive(master, f"kik {nonce.hex()}")
