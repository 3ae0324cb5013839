"""A stand-in for virsh, put on PATH: a program of its own, as the real one is.

What it prints, and how it fails, was copied from libvirt 9.0's virsh, on a domain of its own:
QEMU's answer with libvirt's id and an empty line, errors of QEMU likewise, and status 0 for both;
its own errors on stderr, a line each, and status 1.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

_HEAD = "#!{python}\nimport json, socket, sys, time\narguments = sys.argv[1:]\n"

_FORWARD = """
def fail(text):
    sys.exit("error: " + text)

known = ["--quiet", "qemu-monitor-command", "--domain={domain}", "--"]
uri = [it for it in arguments if it.startswith("--connect=")]
if uri not in ([], ["--connect=qemu:///session"]):
    fail("failed to connect to the hypervisor\\nerror: Failed to connect socket to "
         "'/var/run/libvirt/libvirt-sock': No such file or directory")
rest = [it for it in arguments if it not in uri]
if rest[:-1] != known:
    fail("failed to get domain '" + rest[2].partition("=")[2] + "'")
with socket.socket(socket.AF_UNIX) as qmp:
    qmp.connect({path!r})
    lines = qmp.makefile("rw")
    lines.readline()
    for line in ('{{"execute": "qmp_capabilities"}}', rest[-1]):
        print(line, file=lines, flush=True)
        while "event" in (answer := json.loads(lines.readline())):
            pass
    print(json.dumps({{**answer, "id": "libvirt-411"}}) + "\\n")
"""


def install_virsh(folder: Path, program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a program in Python on PATH as virsh; ``arguments`` are what it was called with."""
    folder.mkdir(exist_ok=True)
    path = folder / "virsh"
    path.write_text(_HEAD.format(python=sys.executable) + program)
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def forwarding(domain: str, socket: Path) -> str:
    """A virsh that knows one domain, whose QMP socket it holds."""
    return _FORWARD.format(domain=domain, path=str(socket))
