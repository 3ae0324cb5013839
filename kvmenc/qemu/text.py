"""Text that QEMU printed: read with a bound on its size, refused by file and line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kvmenc.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["HOST_ADDR_LIMIT", "PAGE_SIZE", "RAM_LIMIT", "QemuText", "read_text"]

#: Of x86, the only guest that kvmenc knows.
PAGE_SIZE = 4096
#: No x86 has more address bits, of a guest or of a process; sums of what is below stay below 2^63.
RAM_LIMIT, HOST_ADDR_LIMIT = 1 << 52, 1 << 62
MAX_TEXT_BYTES = 16 * 2**20
MAX_LINE = 4096
_MOST_SHOWN = 60


@dataclass(frozen=True, slots=True)
class QemuText:
    """Text and where it comes from.

    Attributes:
        source: a file's name, or the command that was asked.
        content: the text.
    """

    source: str
    content: str

    def lines(self) -> Iterator[tuple[int, str]]:
        """Numbered lines, from 1, without blank ones and prompts of the human monitor.

        Raises:
            InputError: a line is longer than QEMU prints, so that patterns need not cope with it;
                or the last one has no end, and half a line may look like another whole one.
        """
        lines = self.content.split("\n")
        for number, line in enumerate(lines, 1):
            text = line.rstrip()
            if len(text) > MAX_LINE:
                raise self.error(number, f"longer than {MAX_LINE} characters", text)
            if text and not text.startswith("(qemu)"):
                if number == len(lines):
                    raise self.error(number, "cut off, there is no newline at its end", text)
                yield number, text

    def error(self, number: int, why: str, line: str = "") -> InputError:
        """What is wrong with a line, and the line itself if it is given."""
        shown = f": {line.strip()[:_MOST_SHOWN]!r}" if line else ""
        return InputError(f"{self.source}, line {number}: {why}{shown}")


def read_text(path: Path) -> QemuText:
    """Read a file.

    Raises:
        InputError: it cannot be read, is larger than 16 MiB, or is no text.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_TEXT_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    if len(content) > MAX_TEXT_BYTES:
        raise InputError(
            f"{path}: larger than {MAX_TEXT_BYTES >> 20} MiB; of a long log, keep the lines with "
            "kvm_set_user_memory"
        )
    try:
        return QemuText(str(path), content.decode())
    except UnicodeDecodeError as error:
        number = content.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path}, line {number}: not text (UTF-8)") from error
