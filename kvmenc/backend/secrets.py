"""Bytes of which a recording has digests only: made up alike, and known again.

In a replay a secret that came out is bytes made from its digest. A program that passes them on, as
one passes a session or a packet from a sender to a receiver, is then seen to pass on the same. What
the program itself once passed in, such as the pages that a guest is launched with, is known by its
digest and comes out as it was.
"""

from __future__ import annotations

import hashlib

from kvmenc.backend.callmemory import digest_of
from kvmenc.backend.recordmodel import CHUNK_BYTES, DIGEST_BYTES, SCHEMA

__all__ = ["Secrets"]

#: 64 MiB.
_MOST_KNOWN = 2**14


class Secrets:
    """What is known of them in one replay."""

    def __init__(self) -> None:
        self._known: dict[bytes, bytes] = {}

    def are(self, digests: bytes, data: bytes) -> bool:
        """Whether ``data`` is what the digests are of, or was made up from them."""
        return all(
            self._is(_digest(digests, number), data[at : at + CHUNK_BYTES])
            for number, at in enumerate(range(0, len(data), CHUNK_BYTES))
        )

    def _is(self, digest: bytes, chunk: bytes) -> bool:
        if chunk == _made_up(digest, len(chunk)):
            return True
        if digest_of(chunk) != digest:
            return False
        if len(self._known) < _MOST_KNOWN:
            self._known[digest] = chunk
        return True

    def filled(self, digests: bytes, nbytes: int) -> bytes:
        """Bytes in their place."""
        return b"".join(
            self._chunk(_digest(digests, number), min(CHUNK_BYTES, nbytes - at))
            for number, at in enumerate(range(0, nbytes, CHUNK_BYTES))
        )

    def _chunk(self, digest: bytes, nbytes: int) -> bytes:
        known = self._known.get(digest)
        return known if known and len(known) == nbytes else _made_up(digest, nbytes)


def _digest(digests: bytes, number: int) -> bytes:
    return digests[number * DIGEST_BYTES : (number + 1) * DIGEST_BYTES]


def _made_up(digest: bytes, nbytes: int) -> bytes:
    return hashlib.shake_256(SCHEMA.encode() + digest).digest(nbytes)
