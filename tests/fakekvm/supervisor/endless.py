"""A fake whose guests never leave KVM_RUN by themselves."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from fakekvm.guests import sequential_writer
from fakekvm.machine import Machine
from fakekvm.supervisor import run

if TYPE_CHECKING:
    from fakekvm.guests import Script
    from fakekvm.scripts import WritableGfns


class Endless:
    about = "each KVM_RUN writes all of the first slot for ever"

    def script(self, vm: int, vcpu: int, writable: WritableGfns) -> Script:
        return sequential_writer(range(0x100, 0x1100))


def endless(command: list[str]) -> int:
    return run(command, Machine(None, Endless()), lambda text: print(text, file=sys.stderr))
