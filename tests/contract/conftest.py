"""One suite over every backend: the fake everywhere, the real kernel where it opens."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import fakekvm
from kvmenc.backend import LocalBackend
from kvmenc.backend.fake import FakeBackend
from tests.support import need_kvm

if TYPE_CHECKING:
    from kvmenc.backend import Backend


@pytest.fixture(params=["fake", pytest.param("local", marks=pytest.mark.kvm)])
def backend(request: pytest.FixtureRequest) -> Backend:
    if request.param == "fake":
        return FakeBackend(fakekvm.Host())
    need_kvm()
    return LocalBackend()
