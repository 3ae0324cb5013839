"""What a kernel answered, kept for machines where /dev/kvm does not open.

    .venv/bin/python -m tests.fakekvm.record_answers

asks this machine's kernel what ``test_against_kernel`` asks, and writes its answers down.
"""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Self

import msgspec

from fakekvm import Host
from tests.fakekvm.lockstep import host_like_this_one
from tests.fakekvm.raw import RealMachine

FOLDER = Path(__file__).parents[1] / "data" / "kvm"


class Recorded(msgspec.Struct):
    """Answers of a kernel.

    Attributes:
        kernel: its version and its modules that make KVM.
        capabilities: of /dev/kvm, by number.
        ring_reserved_entries: as in ``Host``.
        ring_logs_every_write: as in ``Host``.
        answers: by the name of the function that asked.
    """

    kernel: str
    capabilities: dict[int, int]
    ring_reserved_entries: int
    ring_logs_every_write: bool
    answers: dict[str, list[int | str]]

    @classmethod
    def read(cls, path: Path) -> Self:
        return msgspec.json.decode(path.read_bytes(), type=cls)

    def host(self) -> Host:
        """A fake host like that machine."""
        return Host(
            capabilities=self.capabilities,
            ring_reserved_entries=self.ring_reserved_entries,
            ring_logs_every_write=self.ring_logs_every_write,
        )


def main() -> None:
    """Ask, and write."""
    from tests.fakekvm.test_against_kernel import SCENARIOS  # noqa: PLC0415 - it imports this module

    version = platform.release().split("-")[0]
    host = host_like_this_one()
    modules = sorted(path.name for path in Path("/sys/module").glob("kvm*"))
    answers: dict[str, list[int | str]] = {}
    for scenario in SCENARIOS:
        with RealMachine() as machine:
            answers[scenario.__name__] = scenario(machine)
    recorded = Recorded(
        kernel=f"Linux {version}, {', '.join(modules)}",
        capabilities={number: value for number, value in host.capabilities.items() if value},
        ring_reserved_entries=host.ring_reserved_entries,
        ring_logs_every_write=host.ring_logs_every_write,
        answers=answers,
    )
    text = msgspec.json.format(msgspec.json.encode(recorded), indent=1)
    path = FOLDER / f"answers-{'.'.join(version.split('.')[:2])}.json"
    path.write_bytes(text + b"\n")


if __name__ == "__main__":
    main()
