"""Sound inputs broken by hypothesis, and a watch over what is made of each."""

from __future__ import annotations

import os
import random
import time
import tracemalloc
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kvmenc.errors import KvmencError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["Change", "Parser", "Watch", "broken", "each", "feed"]

#: For each parser; ``make soak-fuzz`` sets many.
SOAK = "KVMENC_FUZZ_INPUTS" in os.environ
_SEED = os.environ.get("KVMENC_FUZZ_SEED", "parsers")
INPUTS = int(os.environ.get("KVMENC_FUZZ_INPUTS", "40"))
LONGEST_S, LONGEST_CHARACTERS = 2.0, 1500

_NUMBERS = [0, 1, 2, 255, 4095, 4097, 2**15, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1]
#: What breaks parsers: ends of ranges, numbers of too many digits, nests, lines that are none to
#: the kernel but to ``str.splitlines``, what moves a terminal's cursor, text that is none.
PIECES = [
    *(it.to_bytes(8, order) for it in _NUMBERS for order in ("little", "big")),
    *(str(it).encode() for it in (*_NUMBERS, -1, 2**80)),
    *(f"0x{it:x}".encode() for it in _NUMBERS),
    *(b"9" * 5000, b"1e999", b"-0.0", b"NaN", b"null", b"true", b"{}", b"[]", b'""', b"\\ud800"),
    *(b"[" * 3000, b'{"":' * 3000, b"(" * 300, b"A" * 5000),
    *(b"\n", b"\r", b"\0", b"\t", b" ", b"'", b'"', b"\\", b",", b":", b"-", b"%", b"@", b"/"),
    *("\x1b[2J\x1c\x85\u2028\u202e\u0663\ud7ff\U000e0001".encode(), b"\xff\xfe", b"\xed\xa0\x80"),
]


class Change(NamedTuple):
    """A stretch that is replaced.

    Attributes:
        at: where, modulo the length.
        length: of what goes.
        put: what comes; a number: as much from there.
    """

    at: int
    length: int
    put: bytes | int


_AT, _LENGTHS, _NOISE_BYTES = 2**20, (0, 1, 2, 4, 8, 24, 4096), 200


def broken(rng: random.Random, seeds: Sequence[bytes]) -> bytes:
    """One of the seeds, changed; or noise."""
    if rng.randrange(8) == 7:
        return rng.randbytes(rng.randrange(_NOISE_BYTES))
    changes = [_change(rng) for _ in range(rng.choice((1, 1, 1, 2, 4)))]
    return _changed(rng.choice(seeds), changes)


def _change(rng: random.Random) -> Change:
    puts = rng.choice(PIECES), rng.randbytes(rng.randrange(8)), rng.randrange(_AT)
    return Change(rng.randrange(_AT), rng.choice(_LENGTHS), rng.choice(puts))


def each(
    name: str, one: Callable[[random.Random], str], expected: set[str], share: float = 1.0
) -> None:
    """Try as many inputs as are wanted, each made of this chance; print what came of them.

    In CI the chance is hypothesis', which makes little ones of those that fail; it is slow.

    Args:
        name: of what is tried.
        one: tries one; says in a word what came of it.
        expected: words that must come, among many.
        share: of all inputs: less than 1 for what is slow.
    """
    inputs = max(10, round(INPUTS * share))
    outcomes, began_s = Counter[str](), time.process_time()

    def count(rng: random.Random) -> None:
        outcomes[one(rng)] += 1

    if SOAK:
        rng = random.Random(f"{_SEED} {name}")
        for _ in range(inputs):
            count(rng)
    else:
        checks = list(HealthCheck)
        few = settings(max_examples=inputs, database=None, suppress_health_check=checks)
        few(given(st.randoms(use_true_random=False))(count))()
    rate = outcomes.total() / (time.process_time() - began_s)
    told = ", ".join(f"{times:,} {what}" for what, times in outcomes.most_common(9))
    print(f"\n{name}: {outcomes.total():,} inputs, {rate:,.0f}/s: {told}")
    assert outcomes.total() < 1000 or expected <= set(outcomes)


def _changed(seed: bytes, changes: list[Change]) -> bytes:
    data = bytearray(seed)
    for it in changes:
        at, put = it.at % (len(data) + 1), it.put
        if isinstance(put, int):
            start = put % (len(data) + 1)
            put = bytes(data[start : start + it.length])
        data[at : at + it.length] = put
    return bytes(data)


@dataclass(frozen=True, slots=True)
class Parser:
    """What reads something from outside.

    Attributes:
        seeds: sound inputs.
        read: reads one.
        most_bytes: what it may allocate for one of these small inputs.
        errors: what it may refuse one with.
        share: of all inputs: less than 1 for one that is slow.
    """

    seeds: Sequence[bytes]
    read: Callable[[bytes], object]
    most_bytes: int = 4 << 20
    errors: tuple[type[Exception], ...] = (KvmencError,)
    share: float = 1.0


class Watch:
    """Bounds on each input, and a line about all."""

    def __init__(self, parser: Parser) -> None:
        self._parser = parser
        self.longest_s, self.most_bytes = 0.0, 0

    def feed(self, data: bytes) -> str:
        """Read or refused, within the bounds; returns which.

        CPU time: a busy machine is not a bug. Of NumPy's arrays tracemalloc knows too.
        """
        start = time.process_time()
        tracemalloc.start()
        try:
            refused = self._refusal(data)
            taken = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        took_s = time.process_time() - start
        self.longest_s, self.most_bytes = max(self.longest_s, took_s), max(self.most_bytes, taken)
        assert took_s < LONGEST_S
        assert taken < self._parser.most_bytes
        if refused is None:
            return "read"
        assert refused.isprintable(), "one line, and nothing that moves a cursor"
        assert 0 < len(refused) <= LONGEST_CHARACTERS
        return "refused"

    def _refusal(self, data: bytes) -> str | None:
        try:
            self._parser.read(data)
        except self._parser.errors as error:
            return str(error)
        return None


def feed(name: str, parser: Parser) -> None:
    """Feed a parser its inputs, and print how they fared."""
    for seed in parser.seeds:
        parser.read(seed)  # sound; and what is imported or cached at first counts for no input
    watch = Watch(parser)
    expected = {"read", "refused"}
    each(name, lambda rng: watch.feed(broken(rng, parser.seeds)), expected, parser.share)
    print(f"{'':>8}at most {watch.most_bytes >> 10:,} KiB and {watch.longest_s * 1e3:.0f} ms each")
