"""Could the bytes of a page be ciphertext? A test on byte counts whose error is bounded by proof.

To the host a private page is AES ciphertext: bytes that are uniform and independent. The test
counts, per page, how often each of the 256 byte values occurs, and takes the sum of the squared
counts. This is Pearson's chi-square in whole numbers: for n bytes, chi2 = 256 * sum / n - n. Data
is too uneven (text, code, pointers, counters) or, rarely, too even (a ramp); ciphertext is neither.

Only 16-byte blocks that are not zero take part. Memory is encrypted in blocks of 16 bytes, so a
private page of which the guest wrote a part holds ciphertext there and the host's zeros elsewhere;
counting those zeros would call it shared. The limits therefore depend on how many blocks there are.
"""

from __future__ import annotations

import math
from enum import IntEnum
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["FALSE_SHARED_PROBABILITY", "PageClass", "classify", "limits"]

PAGE_BYTES = 4096
BLOCK_BYTES = 16
BLOCKS_PER_PAGE = PAGE_BYTES // BLOCK_BYTES
BYTE_VALUES = 256

# At most 0.001 private pages called shared in a 1 TiB guest, in expectation.
FALSE_SHARED_PROBABILITY = 1e-3 / 2**28

# 64 pages and their indices (256 KiB and 2 MiB) stay in the cache: the fastest batch measured.
_BATCH_PAGES = 64


class PageClass(IntEnum):
    """What a page's content tells the host."""

    ZERO = 0  # all zero: shared, or never written; never claimed to be private
    SHARED = 1  # holds bytes that are no ciphertext
    PRIVATE_OR_RANDOM = 2  # ciphertext, or compressed, encrypted or random data in a shared page
    UNREAD = 3  # could not be read; nothing is claimed


def classify(pages: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The class of each page, by its content.

    Args:
        pages: shape (npages, 4096), C-contiguous.

    Returns:
        ``PageClass`` values, shape (npages,). A page of ciphertext is called ``SHARED`` with
        probability of at most ``FALSE_SHARED_PROBABILITY``.
    """
    classes = np.empty(len(pages), np.uint8)
    for first in range(0, len(pages), _BATCH_PAGES):
        batch = slice(first, first + _BATCH_PAGES)
        classes[batch] = _classify_batch(pages[batch])
    return classes


def _classify_batch(pages: NDArray[np.uint8]) -> NDArray[np.uint8]:
    blocks = _written_blocks(pages)
    classes = np.full(len(pages), PageClass.ZERO, np.uint8)
    written = np.flatnonzero(blocks)
    blocks = blocks[written]
    sums = _sums_of_squares(pages[written], blocks)
    low, high = limits(FALSE_SHARED_PROBABILITY)
    random = (sums >= low[blocks]) & (sums <= high[blocks])
    classes[written] = np.where(random, PageClass.PRIVATE_OR_RANDOM, PageClass.SHARED)
    return classes


def _written_blocks(pages: NDArray[np.uint8]) -> NDArray[np.intp]:
    halves = pages.view(np.uint64).reshape(len(pages), BLOCKS_PER_PAGE, 2)
    blocks: NDArray[np.intp] = np.count_nonzero(halves[:, :, 0] | halves[:, :, 1], axis=1)
    return blocks


def _sums_of_squares(pages: NDArray[np.uint8], blocks: NDArray[np.intp]) -> NDArray[np.int64]:
    npages = len(pages)
    first_bin = np.arange(npages, dtype=np.int64)[:, np.newaxis] * BYTE_VALUES
    counts = np.bincount((pages + first_bin).ravel(), minlength=npages * BYTE_VALUES)
    counts = counts.reshape(npages, BYTE_VALUES)
    counts[:, 0] -= BLOCK_BYTES * (BLOCKS_PER_PAGE - blocks)
    sums: NDArray[np.int64] = np.einsum("pv,pv->p", counts, counts)
    return sums


@cache
def limits(false_alarm: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Limits of the sum of squared byte counts, by the number of blocks counted.

    Args:
        false_alarm: the probability that ciphertext may at most have of falling outside.

    Returns:
        low, high: shape (257,), inclusive; index = number of 16-byte blocks (0: no limits).

    The bound is proved, since the usual chi-square distribution is too light this far out. Byte
    counts of random bytes are independent Poisson counts, given their total n; so any event is at
    most 1 / P(Poisson(n) = n) times as likely as among independent ones, where Chernoff's bound
    gives exp(-t x) E[exp(t g)]^256 for the sum of g(count) >= x. With g = (count - mean)^2 - count,
    which does not follow the total, it is tight enough (a whole page: chi2 within 114 .. 489).
    Counts over a cap, whose exponentials would have no finite mean, get 1 % of the probability.
    """
    low = np.zeros(BLOCKS_PER_PAGE + 1, np.int64)
    high = np.zeros(BLOCKS_PER_PAGE + 1, np.int64)
    for blocks in range(1, BLOCKS_PER_PAGE + 1):
        low[blocks], high[blocks] = _limits_of(blocks * BLOCK_BYTES, math.log(false_alarm))
    return low, high


def _limits_of(nbytes: int, log_alarm: float) -> tuple[int, int]:
    mean = nbytes / BYTE_VALUES
    counts = np.arange(_count_cap(mean, log_alarm + math.log(0.01)) + 1)
    log_factorial = np.cumsum(np.log(np.maximum(counts, 1)))
    log_poisson = counts * math.log(mean) - mean - log_factorial
    deviation = (counts - mean) ** 2 - counts
    # The sum of squares = sum of deviations + offset, because the counts add up to nbytes.
    offset = nbytes * mean + nbytes
    log_total = nbytes * math.log(nbytes) - nbytes - math.lgamma(nbytes + 1)
    log_side = log_alarm + math.log(0.495) + log_total

    tilt = np.geomspace(0.005, 5, 40)
    tilted = tilt[:, np.newaxis] * deviation
    log_up = BYTE_VALUES * np.logaddexp.reduce(log_poisson + tilted, axis=1)
    log_down = BYTE_VALUES * np.logaddexp.reduce(log_poisson - tilted, axis=1)
    high = np.min((log_up - log_side) / tilt) + offset
    low = np.max((log_side - log_down) / tilt) + offset
    return math.floor(low) + 1, math.ceil(high) - 1


def _count_cap(mean: float, log_alarm: float) -> int:
    """The least count that any of the byte values exceeds with so small a probability."""
    cap = math.ceil(mean)
    while math.log(BYTE_VALUES) - mean + cap * (1 + math.log(mean / cap)) > log_alarm:
        cap += 1
    return cap
