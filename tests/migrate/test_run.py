"""Whenever Ctrl-C comes, no migration goes on behind our back, and QEMU's parameters are its own.

With a real QEMU: :mod:`tests.qemu.test_migrate_command`.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Self

import pytest

from kvmenc.encstate.kinds import VmKind
from kvmenc.errors import HostError
from kvmenc.migrate import Migration, QemuParameters
from kvmenc.qemu.facts import Facts
from kvmenc.qemu.monitor import CommandError, Monitor

if TYPE_CHECKING:
    from types import TracebackType

OWN = {"max-bandwidth": 1 << 27, "downtime-limit": 300}
WISHED = QemuParameters(5 << 20, 100)


class Interrupted(Monitor):
    """A QEMU whose user presses Ctrl-C while a command is carried out.

    Args:
        at: at which one, from 0 on.
        before: QEMU has not seen it then.
    """

    name = "qemu"

    def __init__(self, at: int, *, before: bool = False) -> None:
        self.left, self.before = at, before
        self.status = "none"
        self.parameters: dict[str, object] = dict(OWN)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        """Nothing to close."""

    def execute(self, command: str, **arguments: object) -> object:
        self.left -= 1
        if self.left == -1 and self.before:
            raise KeyboardInterrupt
        answer = self.answer(command, arguments)
        if self.left == -1:
            raise KeyboardInterrupt
        return answer

    def answer(self, command: str, arguments: dict[str, object]) -> object:
        if command == "migrate":
            self.status = "active"
        elif command == "migrate_cancel":
            self.status = "cancelled"
        elif command == "migrate-set-parameters":
            self.parameters = {name.replace("_", "-"): it for name, it in arguments.items()}
        elif command == "query-migrate-parameters":
            return self.parameters
        elif command == "query-migrate-capabilities":
            return []
        elif command == "query-migrate":
            return {"status": self.status} if self.status != "none" else {}
        return {}


def migrate(qemu: Interrupted) -> None:
    facts = Facts((10, 0, 0), "", os.getpid(), (), "running", None, VmKind.PLAIN, None)
    with WISHED.in_force(qemu), Migration(qemu, facts, "tcp:b:1") as migration:
        assert qemu.parameters == {"max-bandwidth": 5 << 20, "downtime-limit": 100}
        migration.start()
        for _ in migration.follow():
            pass


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("at", range(8))
def test_ctrl_c_leaves_no_migration_and_no_parameters(at: int, *, before: bool) -> None:
    qemu = Interrupted(at, before=before)
    with pytest.raises(KeyboardInterrupt):
        migrate(qemu)
    assert qemu.status in {"none", "cancelled"}
    assert qemu.parameters == OWN


def test_one_that_does_not_start_is_told() -> None:
    class Refuses(Interrupted):
        def answer(self, command: str, arguments: dict[str, object]) -> object:
            if command == "migrate":
                raise CommandError("qemu: migrate", "GenericError", "no such device")
            return super().answer(command, arguments)

    qemu = Refuses(99)
    with pytest.raises(HostError, match="does not start: no such device"):
        migrate(qemu)
    assert (qemu.status, qemu.parameters) == ("none", OWN)
