"""Pages of known kinds, as a host would see them: shape (npages, 4096), uint8."""

from __future__ import annotations

import argparse
import inspect
import marshal
import zlib
from typing import TYPE_CHECKING

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

if TYPE_CHECKING:
    from numpy.typing import NDArray

_KEY = bytes(range(64))


def as_pages(data: bytes, npages: int) -> NDArray[np.uint8]:
    """``npages`` pages of ``data``, repeated as often as it takes."""
    repeated = np.resize(np.frombuffer(data, np.uint8), npages * 4096)
    return np.ascontiguousarray(repeated).reshape(npages, 4096)


def zeros(npages: int) -> NDArray[np.uint8]:
    return np.zeros((npages, 4096), np.uint8)


def encrypted(plain: NDArray[np.uint8], first_page: int = 0) -> NDArray[np.uint8]:
    """As SEV does it: AES, tweaked by the address, so that equal blocks look different."""
    out = np.empty_like(plain)
    for row, page in enumerate(plain):
        tweak = (first_page + row).to_bytes(16, "little")
        cipher = Cipher(algorithms.AES(_KEY), modes.XTS(tweak)).encryptor()
        out[row] = np.frombuffer(cipher.update(page.tobytes()), np.uint8)
    return out


def text(npages: int) -> NDArray[np.uint8]:
    return as_pages(inspect.getsource(argparse).encode(), npages)


def log_lines(npages: int) -> NDArray[np.uint8]:
    lines = (
        f"2026-11-23T15:{i // 60 % 60:02}:{i % 60:02}Z host{i % 7} kernel: [{i * 0.013:.6f}] "
        f"eth0: link up, {i * 7919 % 100000} packets\n"
        for i in range(npages * 60)
    )
    return as_pages("".join(lines).encode(), npages)


def code(npages: int) -> NDArray[np.uint8]:
    return as_pages(marshal.dumps(compile(inspect.getsource(argparse), "argparse", "exec")), npages)


def counters(npages: int) -> NDArray[np.uint8]:
    """Words of 64 bits that count up."""
    return np.arange(npages * 512, dtype="<u8").view(np.uint8).reshape(npages, 4096)


def pointers(npages: int) -> NDArray[np.uint8]:
    """Kernel addresses at random: 8 bytes each, the upper 4 of them alike."""
    low = np.random.default_rng(3).integers(0, 2**32, npages * 512, dtype=np.uint64)
    return (low | np.uint64(0xFFFF_8881_0000_0000)).view(np.uint8).reshape(npages, 4096)


def ramp(npages: int) -> NDArray[np.uint8]:
    """0, 1 .. 255, again and again: more even than chance allows."""
    return as_pages(bytes(range(256)), npages)


def compressed(npages: int) -> NDArray[np.uint8]:
    """The inside of one long zlib stream."""
    numbers = np.random.default_rng(4).integers(0, 10**9, npages * 2000)
    stream = zlib.compress(" ".join(map(str, numbers)).encode(), 9)
    return as_pages(stream[4096:], npages)


def random(npages: int, seed: int = 5) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (npages, 4096), dtype=np.uint8)
