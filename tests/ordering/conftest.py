"""The whole search is made once for all tests."""

from __future__ import annotations

import pytest

from kvmenc.ordering import FULL, OrderCheck, check


@pytest.fixture(scope="session")
def found() -> OrderCheck:
    return check(FULL)
