"""What the kernel answers in the wrong moment."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import pytest
from pyroute2.netlink.exceptions import NetlinkError  # type: ignore[import-untyped]

from kvmenc.errors import HostError
from kvmenc.link.kernel import LiveKernel

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def kernel() -> Iterator[LiveKernel]:
    """Needs no root."""
    with LiveKernel() as opened:
        yield opened


def test_a_list_that_changed_while_it_was_read_is_read_again(
    kernel: LiveKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    torn, whole = [{"header": {"flags": 0x12}}], [{"header": {"flags": 0x2}}]
    answers = iter([torn, torn, whole])
    monkeypatch.setattr(kernel._rtnetlink, "get_links", lambda: next(answers))
    assert kernel.links() == whole


def test_a_list_that_always_changes_is_one_line(
    kernel: LiveKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel._rtnetlink, "get_links", lambda: [{"header": {"flags": 0x12}}])
    with pytest.raises(HostError, match="the list changes all the time"):
        kernel.links()


@pytest.mark.parametrize(
    ("error", "complaint"),
    [
        (NetlinkError(errno.EPERM, "why"), "RTM_GETLINK failed: EPERM"),
        (OSError(errno.ENOBUFS, "why"), "RTM_GETLINK failed: ENOBUFS"),
    ],
)
def test_a_request_that_fails_is_one_line(
    kernel: LiveKernel, monkeypatch: pytest.MonkeyPatch, error: Exception, complaint: str
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr(kernel._rtnetlink, "get_links", fail)
    with pytest.raises(HostError, match=complaint):
        kernel.links()


def test_a_device_that_is_not_there_has_no_speed(kernel: LiveKernel) -> None:
    assert kernel.speed_mbit_per_s("no-such") is None
    assert kernel.speed_mbit_per_s("lo") is None
