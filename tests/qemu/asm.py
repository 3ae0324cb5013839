"""Machine code with labels, as much of it as the guests of the tests need."""

from __future__ import annotations

import struct

_SHORT = {"jmp": 0xEB, "jb": 0x72, "jnc": 0x73, "jz": 0x74, "jnz": 0x75, "jbe": 0x76, "loop": 0xE2}


class Code:
    """32-bit code being put together; jumps are relative, so it may lie anywhere."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._labels: dict[str, int] = {}
        self._jumps: list[tuple[int, int, str]] = []

    def put(self, hexadecimal: str, *words: int) -> None:
        """Bytes, and after them numbers of 32 bits."""
        self._bytes += bytes.fromhex(hexadecimal)
        self._bytes += struct.pack(f"<{len(words)}I", *(word % 2**32 for word in words))

    def port(self, port: int, *values: int) -> None:
        """Write bytes to an I/O port; changes al."""
        for value in values:
            self.put(f"b0{value:02x} e6{port:02x}")

    def label(self, name: str) -> None:
        assert name not in self._labels
        self._labels[name] = len(self._bytes)

    def jump(self, kind: str, label: str) -> None:
        """At most 127 bytes far."""
        self._bytes.append(_SHORT[kind])
        self._jump(1, label)

    def jump_far(self, label: str) -> None:
        self._bytes.append(0xE9)
        self._jump(4, label)

    def _jump(self, size: int, label: str) -> None:
        self._jumps.append((len(self._bytes), size, label))
        self._bytes += bytes(size)

    def __bytes__(self) -> bytes:
        code = bytearray(self._bytes)
        for at, size, label in self._jumps:
            distance = self._labels[label] - at - size
            code[at : at + size] = distance.to_bytes(size, "little", signed=True)
        return bytes(code)
