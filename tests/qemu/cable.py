"""Two network namespaces and a shaped cable between them, gone afterwards.

A QEMU in ``near`` sends, and what is in ``far`` receives. Only ``near`` is shaped: acknowledgements
are few.
"""

from __future__ import annotations

import os
import subprocess
from contextlib import ExitStack
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Iterable

HERE, THERE = "198.51.100.1", "198.51.100.2"
#: tbf hands out tokens to its burst at most; TCP's segments come in bundles of 64 KiB.
_MIN_BURST_BYTES = 256 << 10
_BURST_S = 0.002
_LATENCY_MS = 50


class Cable:
    """A context manager; needs root, ``ip`` and ``tc``.

    Args:
        bytes_per_s: of packets, with their Ethernet headers.

    Attributes:
        near: the name of the namespace that sends.
        far: of the one that receives.
    """

    def __init__(self, bytes_per_s: float) -> None:
        self.near, self.far = (f"kvmenc-{os.getpid()}-{end}" for end in ("send", "receive"))
        self._rate = bytes_per_s
        self._cleanup = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            for name in (self.near, self.far):
                _run(f"ip netns add {name}")
                stack.callback(_run, f"ip netns del {name}")
            self._connect()
            self._shape()
            self._cleanup = stack.pop_all()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._cleanup.close()

    def _connect(self) -> None:
        peer = f"peer name v0 netns {self.far}"
        _run(f"ip -n {self.near} link add v0 type veth {peer}")
        for netns, address in ((self.near, HERE), (self.far, THERE)):
            _run(f"ip -n {netns} addr add {address}/24 dev v0")
            for device in ("lo", "v0"):
                _run(f"ip -n {netns} link set {device} up")

    def _shape(self) -> None:
        burst = max(_MIN_BURST_BYTES, round(self._rate * _BURST_S))
        tbf = f"tbf rate {round(self._rate * 8)}bit burst {burst} latency {_LATENCY_MS}ms"
        _run(f"tc -n {self.near} qdisc add dev v0 root {tbf}")

    def start(self, netns: str, command: Iterable[str]) -> subprocess.Popen[str]:
        """A program at one of the ends; what it prints can be read."""
        enter = ["nsenter", f"--net=/run/netns/{netns}"]
        return subprocess.Popen([*enter, *command], stdout=subprocess.PIPE, text=True)


def _run(command: str) -> None:
    done = subprocess.run(command.split(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stderr}"
