"""A program: saves a capture in children of its own and kills them; says what each left behind.

Arguments: the directory, how many kills, and whether there is a file already. Prints a JSON
object for each: the files that there are then, by name, and the ``source`` that each of them says.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import msgspec
import numpy as np

from kvmenc.capture import BlockFacts, Capture, CurvePoint, open_capture, save_capture
from kvmenc.memory.words import WORD

WORDS = 2**17
BEFORE, NEW = "before", "new"


def save(path: Path, source: str) -> None:
    """1 MiB that do not compress, so that there is time to be killed in."""
    words = np.random.default_rng(1).integers(0, 2**64, WORDS, np.uint64).astype(WORD)
    block = BlockFacts("ram", WORDS * 64, 0, None, 0)
    capture = Capture(
        source=source, private_source="none", blocks=(block,), curve=(CurvePoint(1, 0, 0),)
    )
    save_capture(capture, path, {("dirty", "ram"): words})


def source_of(path: Path) -> str:
    """Reads all of it."""
    with open_capture(path) as file:
        file.bitmap("dirty", "ram")
        return file.capture.source


def save_and_be_killed(path: Path, after_s: float) -> None:
    child = os.fork()
    if not child:
        save(path, NEW)
        os._exit(0)
    time.sleep(after_s)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def main(directory: Path, kills: int, *, over_a_file: bool) -> None:
    path = directory / "a.capture"
    start = time.monotonic()
    save(path, BEFORE)
    whole_s = time.monotonic() - start
    for number in range(kills):
        path.unlink(missing_ok=True)
        if over_a_file:
            save(path, BEFORE)
        save_and_be_killed(path, 1.3 * whole_s * number / kills)
        left = {it.name: source_of(it) for it in directory.iterdir()}
        print(msgspec.json.encode(left).decode(), flush=True)
        for it in directory.iterdir():
            it.unlink()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), over_a_file=json.loads(sys.argv[3]))
