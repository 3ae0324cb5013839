from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.link.lab import Lab, laboratory

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def lab() -> Iterator[Lab]:
    with laboratory() as made:
        yield made
