"""Two network namespaces and a cable between them, made by iproute2 and gone afterwards."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE, THERE = "198.51.100.1", "198.51.100.2"
HERE6, THERE6 = "fd11::1", "fd11::2"


def run(*command: str) -> str:
    """What it prints."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
    return done.stdout


class Lab:
    """``near`` has v0, ``far`` has v1; both ends have addresses of both protocols."""

    def __init__(self) -> None:
        self.near, self.far = f"kvmenc-{os.getpid()}-near", f"kvmenc-{os.getpid()}-far"

    def cable(self) -> None:
        """Connect them."""
        self.ip("link", "add", "v0", "type", "veth", "peer", "name", "v1", "netns", self.far)
        for netns, device, v4, v6 in (
            (self.near, "v0", HERE, HERE6),
            (self.far, "v1", THERE, THERE6),
        ):
            run("ip", "-n", netns, "addr", "add", f"{v4}/24", "dev", device)
            run("ip", "-n", netns, "addr", "add", f"{v6}/64", "dev", device, "nodad")
            run("ip", "-n", netns, "link", "set", "lo", "up")
            run("ip", "-n", netns, "link", "set", device, "up")

    def ip(self, *words: str) -> str:
        """``ip`` at the near end."""
        return run("ip", "-n", self.near, *words)

    def tc(self, *words: str) -> str:
        """``tc`` at the near end."""
        return run("tc", "-n", self.near, *words)

    def all_that_is_set(self) -> str:
        """Links, addresses, routes, rules and queueing of the near end, without counters."""
        shown = [
            self.ip("-d", "link"), self.ip("addr"), self.ip("route", "show", "table", "all"),
            self.ip("rule"), self.ip("-6", "rule"), self.tc("qdisc"),
            self.tc("class", "show", "dev", "v0"),
        ]  # fmt: skip
        return "\n".join(shown)


@contextmanager
def laboratory() -> Iterator[Lab]:
    """Skip where it cannot be had."""
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    if not (shutil.which("ip") and shutil.which("tc")):
        pytest.skip("ip and tc (iproute2) are not installed")
    lab, made = Lab(), []
    try:
        for name in (lab.near, lab.far):
            run("ip", "netns", "add", name)
            made.append(name)
        lab.cable()
        yield lab
    finally:
        for name in made:
            run("ip", "netns", "del", name)
