"""Whatever comes from outside: a result or one line that says why not, in bounded time and memory.

``make soak-fuzz`` sets KVMENC_FUZZ_INPUTS. Migration streams have a fuzzer of their own,
``tests/stream/fuzz.py``.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.fuzz import files, hosts, qemutexts
from tests.fuzz.inputs import Watch, feed
from tests.fuzz.qemutexts import TOLD, answers
from tests.link.recorded import attribute
from tests.qemu_text.servers import GREETING_LINE
from tests.qemu_text.test_facts import VERSION

if TYPE_CHECKING:
    from collections.abc import Iterator

PARSERS = files.PARSERS | qemutexts.PARSERS | hosts.PARSERS


@pytest.mark.parametrize("name", PARSERS)
def test_any_input_is_read_or_refused_in_one_line_within_bounds(name: str, folder: Path) -> None:
    feed(name, PARSERS[name](folder))


_LONG_KEY = b"[[guest]]\n[[guest.phase]]\ndoes = 'halt'\n" + b"A" * 5000 + b" = 1\n"
_GREETED = GREETING_LINE.strip() + b'\n{"return": {}}\n{"return": '
_LONG_KIND = answers(TOLD | {"type": "A" * 5000})
#: What fuzzing has found, each by a parser that crashed or said too much.
FOUND = [
    ("--fault", b"cancel@" + b"9" * 5000),
    ("--fault", b"A" * 5000),
    ("monitor's text", b'{"return": "\xcc("}'),
    ("QMP answers", b'{"error": {"class": "a", "desc": "\\u001b[2J"}}\n' * 13),
    ("QMP answers", _LONG_KIND),
    ("QMP answers", answers(TOLD | {"query-version": VERSION | {"package": "\x1b[2J"}})),
    ("QMP socket", _GREETED + b"9" * 5000),
    ("QMP socket", _GREETED + b"[" * 50_000),
    ("netlink", b"\3" + attribute(2, b"\xff" * 1000)),
    ("/proc maps", "1000-2000 r--p 0 08:01 7 /a\x1cb\u2028c\n".encode()),
    ("/proc maps", b"1000\n"),
    ("/proc status", b"Name:\ta\n"),
    ("scenario", b'schema = "fakekvm.scenario/1"\n' + _LONG_KEY),
]


@pytest.mark.parametrize(("name", "data"), FOUND, ids=[name for name, _ in FOUND])
def test_what_was_found_stays_mended(name: str, data: bytes, folder: Path) -> None:
    Watch(PARSERS[name](folder)).feed(data)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """In memory where there is such a place: a disk's file system makes files slow."""
    if not os.access("/dev/shm", os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        yield Path(name)
