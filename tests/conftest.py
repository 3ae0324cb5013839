"""What holds for all tests."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

# No deadline: a busy machine is not a bug. In CI the same examples each time: a red run must mean
# that the commit is wrong; elsewhere new ones, so that they are searched for.
settings.register_profile("kvmenc", deadline=None, derandomize=os.environ.get("CI") == "true")
settings.load_profile("kvmenc")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """`make alone-tests` finds modules by the word: no test may be alone without it."""
    for item in items:
        if item.get_closest_marker("alone") and "mark.alone" not in item.path.read_text():
            raise pytest.UsageError(f"{item.nodeid} is alone, and its module does not say so")
