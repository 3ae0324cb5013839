"""What holds for all tests."""

from __future__ import annotations

import os

from hypothesis import settings

# No deadline: a busy machine is not a bug. In CI the same examples each time: a red run must mean
# that the commit is wrong; elsewhere new ones, so that they are searched for.
settings.register_profile("kvmenc", deadline=None, derandomize=os.environ.get("CI") == "true")
settings.load_profile("kvmenc")
