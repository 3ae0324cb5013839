"""Migration streams as QEMU saves them: read, told page by page, and written.

Input from outside: whatever a file holds, reading it ends in a result or in one StreamError, within
the memory that :func:`summarize` names.
"""

from __future__ import annotations

from kvmenc.stream.batch import Batch, Kind
from kvmenc.stream.dialects import Dialect
from kvmenc.stream.history import WatchedPage
from kvmenc.stream.privatestate import PrivateRange
from kvmenc.stream.reader import StreamReader
from kvmenc.stream.rebuild import Rebuilt, rebuild
from kvmenc.stream.result import StreamReport
from kvmenc.stream.summary import summarize
from kvmenc.stream.writer import SessionData, StreamBlock, StreamWriter

__all__ = [
    "Batch",
    "Dialect",
    "Kind",
    "PrivateRange",
    "Rebuilt",
    "SessionData",
    "StreamBlock",
    "StreamReader",
    "StreamReport",
    "StreamWriter",
    "WatchedPage",
    "rebuild",
    "summarize",
]
