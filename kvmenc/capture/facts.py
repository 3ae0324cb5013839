"""A capture's facts as JSON, and back."""

from __future__ import annotations

import re

import msgspec
from msgspec import Struct

from kvmenc.capture.faults import faults_of
from kvmenc.capture.model import SCHEMA, Capture

__all__ = ["MAX_FACTS_BYTES", "decode", "encode"]

MAX_FACTS_BYTES = 16 * 2**20

_INNERMOST = re.compile(rb"[\[{]\n[^\[\]{}]*[\]}]")
# JSON escapes newlines in text, so this is never part of one.
_BREAK = re.compile(rb"\n *")


class _Schema(Struct):
    """The one field that every version of the file has."""

    schema: str


def encode(capture: Capture) -> bytes:
    """Indented, what holds only plain values on one line.

    Raises:
        ValueError: reading it back would fail; says which field is wrong.
    """
    text = msgspec.json.format(msgspec.json.encode(capture), indent=1)
    text = _INNERMOST.sub(lambda match: _BREAK.sub(b" ", match[0]), text) + b"\n"
    decode(text)
    return text


def decode(data: bytes) -> Capture:
    """Decode and check.

    Raises:
        ValueError: says which field is wrong and what was expected. What msgspec raises is one.
        RecursionError: nested too deep to be a capture.
    """
    if len(data) > MAX_FACTS_BYTES:
        raise ValueError(f"expected at most {MAX_FACTS_BYTES} bytes of facts")
    schema = msgspec.json.decode(data, type=_Schema).schema
    if schema != SCHEMA:
        raise ValueError(f"expected {SCHEMA!r}, got {schema[:40]!a} - at `$.schema`")
    capture = msgspec.json.decode(data, type=Capture)
    if fault := next(faults_of(capture), None):
        field, expected = fault
        raise ValueError(f"expected {expected} - at `$.{field}`")
    return capture
