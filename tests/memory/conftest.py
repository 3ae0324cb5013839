"""Chunks of two words for the tests of the kernels, so that small bitmaps cross chunks too."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from kvmenc.memory import chunks

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def two_word_chunks() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunks, "CHUNK_WORDS", 2)
        yield
