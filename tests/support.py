"""What tests need of the machine, and what to do where it is missing."""

from __future__ import annotations

import os

import pytest

#: A program: it opens /dev/kvm, waits for the signal that its argument names, and tells of it.
WAITS = """
import os, signal, sys
def told(number, frame):
    os.write(1, b"told %d\\n" % number)
    os._exit(5)
signal.signal(getattr(signal, sys.argv[1]), told)
signal.alarm(60)
os.open("/dev/kvm", os.O_RDWR)
os.write(1, b"waiting\\n")
while True:
    signal.pause()
"""


def kvm_opens() -> bool:
    try:
        os.close(os.open("/dev/kvm", os.O_RDWR))
    except OSError:
        return False
    return True


def need(present: bool, what: str, override: str) -> None:
    """Skip with a reason; fail instead where ``override`` is set in the environment."""
    if present:
        return
    if os.environ.get(override) == "1":
        pytest.fail(f"{what}, and {override}=1 forbids skipping")
    pytest.skip(f"{what} (set {override}=1 to fail instead)")


def need_kvm() -> None:
    need(kvm_opens(), "/dev/kvm does not open here", "KVMENC_REQUIRE_KVM")
