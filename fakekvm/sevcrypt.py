"""What the fake firmware encrypts with: AES-128 in counter mode, HMAC-SHA-256 as a MAC.

It keeps the meaning of AMD's scheme: a key for each guest, and a keystream for each address;
transport keys that only the two platforms can derive; a packet that was changed is refused. For the
way it is AMD's (publication 55766: TEK with AES-128 CTR, TIK with HMAC-SHA-256). Memory controllers
encrypt otherwise (XEX: a block that is written again shows nothing of what changed in it). And all
keys follow from names, so that a run can be repeated: nothing here keeps a secret. Sizes of blobs
are AMD's (sev-tool, src/sevapi.h: sev_session_buf, sev_hdr_buf).
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from typing import TYPE_CHECKING, Protocol

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC

if TYPE_CHECKING:
    from typing import Self

__all__ = [
    "BLOCK_BYTES",
    "HDR_BYTES",
    "SESSION_BYTES",
    "ClearMemory",
    "Memory",
    "MemoryKey",
    "TransportKeys",
    "derive",
    "mac_of",
]

KEY_BYTES = 16
BLOCK_BYTES = 16
_PACKET_BLOCKS = 4096 // BLOCK_BYTES

_HDR = struct.Struct("<I16s32s")  # flags, iv, mac
HDR_BYTES = _HDR.size
_SESSION = struct.Struct("<16s32s16s32s32s")  # nonce, wrapped keys, iv, their mac, policy's mac
SESSION_BYTES = _SESSION.size
_LENGTHS = struct.Struct("<BIII")
_SENT = 2


def derive(secret: bytes, purpose: str, size: int = KEY_BYTES) -> bytes:
    """A key of at most 64 bytes for one purpose."""
    return hashlib.blake2b(purpose.encode(), key=secret, digest_size=size).digest()


def mac_of(key: bytes, *parts: bytes) -> bytes:
    """HMAC-SHA-256 over all parts."""
    return hmac.digest(key, b"".join(parts), "sha256")


class _Stream:
    """AES in counter mode. To encrypt is to decrypt. One thread at a time."""

    def __init__(self, key: bytes) -> None:
        # A cipher for each page would cost ten times what encrypting the page does.
        self._cipher = Cipher(AES(key), CTR(bytes(BLOCK_BYTES))).encryptor()
        self._counter = 0

    def crypt(self, counter: int, data: bytes | memoryview) -> bytes:
        """``data``, which begins at this value of the counter."""
        if counter != self._counter:  # who goes on where it stands need not set it
            self._cipher.reset_nonce(counter.to_bytes(BLOCK_BYTES, "big"))
        size = len(data)
        self._counter = -1 if size % BLOCK_BYTES else counter + size // BLOCK_BYTES
        return self._cipher.update(data)


class Memory(Protocol):
    """How private pages lie in memory."""

    def crypt(self, address: int, data: bytes | memoryview) -> bytes:
        """Encrypt or decrypt ``data`` that lies at ``address``: the same operation."""


class MemoryKey:
    """The key that a guest's private pages lie under. It depends on where a page lies."""

    def __init__(self, key: bytes) -> None:
        self._stream = _Stream(key)

    def crypt(self, address: int, data: bytes | memoryview) -> bytes:
        """The counter is the block's address, so that a run of pages is one stream."""
        block, odd = divmod(address, BLOCK_BYTES)
        if not odd:
            return self._stream.crypt(block, data)
        return self._stream.crypt(block, bytes(odd) + data)[odd:]


class ClearMemory:
    """No key: of a CPU without any."""

    def crypt(self, _address: int, data: bytes | memoryview) -> bytes:
        """As it is."""
        return bytes(data)


class TransportKeys:
    """TEK and TIK: what packets are encrypted and authenticated with.

    Args:
        encryption: TEK.
        integrity: TIK.
    """

    def __init__(self, encryption: bytes, integrity: bytes) -> None:
        self._keys = encryption, integrity
        self._stream = _Stream(encryption)
        self._mac = HMAC(integrity, SHA256())

    def wrap(self, master: bytes, nonce: bytes, policy: int) -> bytes:
        """The session blob, for who has the same ``master``."""
        kek, kik = _wrapping_keys(master, nonce)
        iv = derive(nonce, "wrap iv")
        wrapped = _Stream(kek).crypt(int.from_bytes(iv, "big"), b"".join(self._keys))
        return _SESSION.pack(nonce, wrapped, iv, mac_of(kik, wrapped), self._policy_mac(policy))

    @classmethod
    def unwrap(cls, master: bytes, blob: bytes, policy: int) -> Self | None:
        """What ``wrap`` wrapped; None if anything was changed."""
        nonce, wrapped, iv, mac, policy_mac = _SESSION.unpack(blob[:SESSION_BYTES])
        kek, kik = _wrapping_keys(master, nonce)
        keys = _Stream(kek).crypt(int.from_bytes(iv, "big"), wrapped)
        found = cls(keys[:KEY_BYTES], keys[KEY_BYTES:])
        whole = hmac.compare_digest(mac_of(kik, wrapped), mac)
        same_policy = hmac.compare_digest(found._policy_mac(policy), policy_mac)
        return found if whole and same_policy else None

    def _policy_mac(self, policy: int) -> bytes:
        return mac_of(self._keys[1], struct.pack("<I", policy))

    def seal(self, number: int, data: bytes | memoryview, trans_len: int) -> tuple[bytes, bytes]:
        """Header and contents of packet ``number``; the contents padded with zeros.

        Packets of whole pages that follow each other are one stream of the cipher.
        """
        counter = number * _PACKET_BLOCKS
        iv = counter.to_bytes(BLOCK_BYTES, "big")
        trans = self._stream.crypt(counter, data).ljust(trans_len, b"\0")
        return _HDR.pack(0, iv, self._packet_mac(0, iv, len(data), trans)), trans

    def open(self, hdr: bytes | memoryview, trans: bytes | memoryview, size: int) -> bytes | None:
        """The ``size`` bytes that were sealed; None if anything was changed."""
        flags, iv, mac = _HDR.unpack_from(hdr)
        if not hmac.compare_digest(self._packet_mac(flags, iv, size, trans), mac):
            return None
        return self._stream.crypt(int.from_bytes(iv, "big"), trans[:size])

    def _packet_mac(self, flags: int, iv: bytes, size: int, trans: bytes | memoryview) -> bytes:
        """Not over an order or an address: packets may come in any order, to any page."""
        mac = self._mac.copy()
        mac.update(_LENGTHS.pack(_SENT, flags, size, len(trans)) + iv)
        mac.update(trans)
        return mac.finalize()


def _wrapping_keys(master: bytes, nonce: bytes) -> tuple[bytes, bytes]:
    return derive(master, f"kek {nonce.hex()}"), derive(master, f"kik {nonce.hex()}")
