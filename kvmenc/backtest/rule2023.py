"""The rule of predict_migration.py, for comparison only.

A. Gudkov, "[PATCH v2 4/4] migration/calc-dirty-rate: tool to predict migration time", qemu-devel,
27 Apr 2023, 644a9e7f2bff9d36716a3722c729dc88ea40a35a.1682598010.git.gudkov.andrei@huawei.com (first
posted as cover.1677589218.git.gudkov.andrei@huawei.com, 28 Feb 2023; not merged). Written from the
rule, which is:

* dirty pages within a time: straight lines through the measured points; left of them the line
  through the first two, at 0 ms not below 0; right of them the last slope, until all pages but
  those that were zero are dirty;
* a page is sent as 8 bytes and its content, a zero page as 8 bytes;
* each round is sent to its end; the migration ends with the first round within the downtime limit,
  and does not converge when its total passes an hour.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kvmenc.backtest.rounds import drain

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from kvmenc.backtest.rounds import Rounds
    from kvmenc.capture import Capture

__all__ = ["Rule2023"]

_HEADER_BYTES = 8
_TIME_LIMIT_MS = 3_600_000.0


@dataclass(frozen=True, slots=True)
class Rule2023:
    """A guest as the rule sees it.

    Attributes:
        total_pages: of the guest.
        zero_pages: of these, taken to stay zero.
        ms: where the curve bends, growing, the first at 0.
        pages: distinct pages dirtied within each of ``ms``; after the last no more.
        page_size: bytes.
    """

    total_pages: int
    zero_pages: int
    ms: NDArray[np.float64]
    pages: NDArray[np.float64]
    page_size: int

    @classmethod
    def through(
        cls,
        points: Sequence[tuple[float, float]],
        total_pages: int,
        zero_pages: int,
        page_size: int = 4096,
    ) -> Rule2023:
        """A guest of which ``points`` (ms, distinct pages dirtied within) were measured.

        The rule needs two: one alone is taken for the line from (0 ms, 0 pages) through it.
        """
        (x0, y0), (x1, y1) = ((0.0, 0.0), *points)[-2:] if len(points) == 1 else points[:2]
        knots = [(0.0, max(0.0, y0 - (y1 - y0) / (x1 - x0) * x0)), *points]
        (x0, y0), (x1, y1) = knots[-2:]
        most = total_pages - zero_pages
        if y0 < y1 < most:
            knots.append((x1 + (most - y1) * (x1 - x0) / (y1 - y0), most))
        ms, pages = (np.array(column, dtype=np.float64) for column in zip(*knots, strict=True))
        return cls(total_pages, zero_pages, ms, pages, page_size)

    @classmethod
    def of(cls, capture: Capture) -> Rule2023:
        """The guest of a capture; the rule knows no private pages, so all are normal ones."""
        points = [(it.ms, float(it.private_pages + it.shared_pages)) for it in capture.curve]
        zero_pages = sum(block.zero_pages or 0 for block in capture.blocks)
        return cls.through(points, capture.npages, zero_pages, capture.page_size)

    def dirty_pages(self, ms: float) -> float:
        """Distinct pages dirtied within ``ms``."""
        return float(np.interp(ms, self.ms, self.pages))

    def rounds(
        self, bytes_per_s: float, downtime_limit_ms: float, zero_page_bytes: int = _HEADER_BYTES
    ) -> Rounds | None:
        """Migrate at ``bytes_per_s``; None when it does not converge."""
        normal_bytes = self.page_size + _HEADER_BYTES
        normal_pages = self.total_pages - self.zero_pages
        return drain(
            normal_pages * normal_bytes + self.zero_pages * zero_page_bytes,
            lambda ms: self.dirty_pages(ms) * normal_bytes,
            bytes_per_s,
            downtime_limit_ms,
            _TIME_LIMIT_MS,
        )
