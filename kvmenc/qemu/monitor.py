"""What every way to a running QEMU's QMP can do, whoever holds the socket."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Protocol, Self, TypeVar

import msgspec

from kvmenc.errors import HostError
from kvmenc.qemu.text import QemuText

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["CommandError", "Monitor", "ask", "one_line", "qmp_arguments", "what_is_asked"]

_HOST_ADDRESS = re.compile(r"Host virtual address for 0x[0-9a-f]+ \(.*\) is 0x([0-9a-f]{1,16})")

_MOST_SHOWN = 500

T = TypeVar("T")


class CommandError(HostError):
    """QEMU answered a command with an error.

    Attributes:
        error_class: QMP's name for it, mostly ``GenericError``.
        description: QEMU's own words.
    """

    def __init__(self, where: str, error_class: str, description: str) -> None:
        self.error_class = error_class
        self.description = one_line(description)
        told = self.description or one_line(error_class)
        super().__init__(f"{where}: QEMU refuses: {told}")


class Monitor(Protocol):
    """A QMP monitor; a context manager that closes it.

    Attributes:
        name: the socket, or the domain.
    """

    name: str

    def execute(self, command: str, **arguments: object) -> object:
        """A QMP command; underscores in the names of arguments stand for hyphens.

        Raises:
            CommandError: QEMU answers with an error.
            HostError: QEMU does not answer.
        """
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...

    def monitor(self, line: str) -> QemuText:
        """The answer of the human monitor, which alone knows of memory regions and logs.

        Raises:
            HostError: QEMU does not answer, or not with text.
        """
        answer = self.execute("human-monitor-command", command_line=line)
        if not isinstance(answer, str):
            raise HostError(f"{self.name}: {line}: QEMU answers with no text")
        return QemuText(f"{self.name}: {line}", answer)

    def host_addr(self, gpa: int) -> int:
        """Where a guest physical address lies in QEMU.

        Raises:
            HostError: QEMU does not answer.
            InputError: there is no memory.
        """
        answer = self.monitor(f"gpa2hva {gpa:#x}")
        match = _HOST_ADDRESS.fullmatch(answer.content.strip())
        if not match:
            raise answer.error(1, "QEMU has no host address", answer.content)
        return int(match[1], 16)


def ask(monitor: Monitor, kind: type[T], command: str, **arguments: object) -> T:
    """A QMP command whose answer has a known form.

    Raises:
        HostError: QEMU does not answer, or in another form.
    """
    answer = monitor.execute(command, **arguments)
    try:
        return msgspec.convert(answer, kind)
    except msgspec.ValidationError as error:
        why = one_line(str(error))
        raise HostError(f"{monitor.name}: {command}: not the answer of a QEMU: {why}") from error


def qmp_arguments(arguments: dict[str, object]) -> dict[str, object]:
    """Arguments by their names in QMP."""
    return {key.replace("_", "-"): value for key, value in arguments.items()}


def what_is_asked(command: str, arguments: dict[str, object]) -> str:
    """A command as an error names it: a line of the human monitor by itself."""
    return str(arguments.get("command_line", command))


def one_line(text: str) -> str:
    """Words of somebody else, fit for an error message: bounded, nothing that moves a cursor."""
    line = " ".join(text.split())
    return (line if line.isprintable() else ascii(line)[1:-1])[:_MOST_SHOWN]
