"""Another process's kvmenc, recorded from outside, and replayed by its own ``--backend``."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from kvmenc.backend.recordmodel import Seen
from kvmenc.cli import root
from tests.support import need_kvm

if TYPE_CHECKING:
    from tests.recorder.conftest import Record


MAIN = "from kvmenc.cli import main; main()"


@pytest.mark.kvm
def test_a_probe_with_its_self_test_prints_the_same_from_the_recording(record: Record) -> None:
    """What it saw besides its calls (how far a guest was), it has told."""
    need_kvm()
    probe = ("probe", "--self-test", "--json")
    recorded = record(sys.executable, "-c", MAIN, *probe)
    live = json.loads(recorded.result.stdout)
    again = CliRunner().invoke(root, [*probe, "--backend", f"replay:{recorded.path}"])
    assert again.exit_code == recorded.result.returncode
    assert json.loads(again.stdout) == live | {"backend": "local, recorded"}


TELLS = """
import ctypes, os
tell = ctypes.CDLL(None).ioctl
tell.argtypes = ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p
def say(text, nbytes=None):
    head = (len(text) if nbytes is None else nbytes).to_bytes(8, "little")
    tell(-1, 0xAEFF, head + text)
say(b'{"call":"seen","what":"a count","value":7}')
say(b'{"call":"seen","what":"a \\\\u001b[2J","value":7}')
say(b'{"call":"close","fd":7}')
say(b'{"call":"seen","what":"' + b"x" * 300 + b'","value":7}')
say(b'[' * 100000)
say(b"short", 2**63)
say(b"", 0)
tell(-1, 0xAEFF, None)
"""


def test_what_is_told_is_believed_only_if_a_reader_will(record: Record) -> None:
    calls = record(sys.executable, "-S", "-E", "-c", TELLS).recording.calls
    assert calls == (Seen(what="a count", value=7),)
