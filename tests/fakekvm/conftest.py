from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.fakekvm.raw import FakeMachine

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def fake() -> Iterator[FakeMachine]:
    """A mainline host."""
    with FakeMachine() as machine:
        yield machine
