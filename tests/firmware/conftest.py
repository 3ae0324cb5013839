from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fakekvm import host_named
from kvmenc.backend.fake import FakeBackend
from tests.firmware.guests import Host

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def host() -> Iterator[Host]:
    """A fake host with SEV."""
    with Host(FakeBackend(host_named("sev"))) as host:
        yield host
