"""QMP without a QEMU: a server on a socket that answers from a list, and a monitor without one."""

from __future__ import annotations

import json
import socket
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self

from kvmenc.qemu.monitor import CommandError, Monitor

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

GREETING = {
    "QMP": {
        "version": {"qemu": {"major": 7, "minor": 2, "micro": 22}, "package": ""},
        "capabilities": [],
    }
}
GREETING_LINE = json.dumps(GREETING).encode() + b"\r\n"


class Refusal(dict[str, object]):
    """An answer that is QMP's error."""

    def __init__(self, description: str, error_class: str = "GenericError") -> None:
        super().__init__({"class": error_class, "desc": description})


@contextmanager
def serving(path: Path, greeting: bytes, answers: Sequence[object] = ()) -> Iterator[None]:
    """A QMP server for one client, that closes when it has no more answers."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()

        def run() -> None:
            connection, _ = server.accept()
            with connection:
                connection.sendall(greeting)
                for answer in answers:
                    if not (command := connection.recv(65536)):
                        return
                    key = "error" if isinstance(answer, Refusal) else "return"
                    reply = {key: answer, "id": json.loads(command).get("id")}
                    connection.sendall(json.dumps(reply).encode() + b"\r\n")

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield
        finally:
            thread.join(10)
            assert not thread.is_alive()


class ToldQemu(Monitor):
    """A monitor that answers each command as told.

    Args:
        answers: by command; one that is callable is called with the arguments.

    Attributes:
        asked: the commands, with their arguments.
    """

    def __init__(self, answers: Mapping[str, object]) -> None:
        self.name = "told"
        self.answers = dict(answers)
        self.asked: list[tuple[str, dict[str, object]]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        """Nothing is held."""

    def execute(self, command: str, **arguments: object) -> object:
        self.asked.append((command, arguments))
        answer = self.answers[command]
        if callable(answer):
            answer = answer(**arguments)
        if isinstance(answer, Refusal):
            raise CommandError(f"told: {command}", str(answer["class"]), str(answer["desc"]))
        return answer
