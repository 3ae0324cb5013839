"""QEMU's command line."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal

import pytest

from tests.qemu.guest import PAGE, RAM_PAGES

PROGRAM = os.environ.get("KVMENC_QEMU", "qemu-system-x86_64")

#: All that can be denied; so libvirt starts it.
SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"


@dataclass(frozen=True, slots=True)
class Setup:
    """How QEMU is started.

    Attributes:
        ram_mib: RAM; a guest that does not say otherwise uses the first 64 MiB of it.
        blocks: RAMBlocks of equal size that hold it, each a NUMA node's, if more than one.
        ram: what holds the RAM; ``unreserved`` is anonymous, of any size however little there is.
        sandbox: QEMU may not do what libvirt forbids it, such as to start a process.
        incoming: it waits for a migration to come, and does not run the guest then either.
        cpu_limit_s: a busy QEMU whose tests were killed with SIGKILL ends by itself.
        bios_kib: size of the BIOS; the code is in its last 64 KiB.
        netns: the network namespace that it runs in, by its name; none: the tests' own.
        extra: more of the command line.
    """

    ram_mib: int = RAM_PAGES * PAGE >> 20
    blocks: int = 1
    ram: Literal["anonymous", "memfd", "unreserved"] = "anonymous"
    sandbox: bool = False
    incoming: bool = False
    cpu_limit_s: int = 60
    bios_kib: int = 64
    netns: str = ""
    extra: tuple[str, ...] = ()

    @property
    def command(self) -> list[str]:
        """The program, by way of what puts it into its namespace."""
        enter = ["nsenter", f"--net=/run/netns/{self.netns}"] if self.netns else []
        return [*enter, PROGRAM]

    def arguments(self, board: str) -> list[str]:
        """ACPI is off because its tables are RAMBlocks whose content nobody here knows."""
        arguments = ["-nodefaults", "-display", "none", "-accel", "kvm"]
        arguments += ["-name", "under-test,debug-threads=on", "-m", f"{self.ram_mib}M"]
        machine = f"{board},acpi=off"
        if self.ram != "anonymous":
            kind = {"memfd": "memfd,share=on", "unreserved": "ram,reserve=off"}[self.ram]
            arguments += ["-object", f"memory-backend-{kind},id=pc.ram,size={self.ram_mib}M"]
            machine += ",memory-backend=pc.ram"
        for node in range(self.blocks if self.blocks > 1 else 0):
            size = f"size={self.ram_mib // self.blocks}M"
            arguments += ["-object", f"memory-backend-ram,id=ram{node},{size}"]
            arguments += ["-numa", f"node,memdev=ram{node}"]
        arguments += ["-M", machine]
        if self.sandbox:
            arguments += ["-sandbox", SANDBOX]
        if self.incoming:
            arguments += ["-incoming", "defer", "-S"]
        return [*arguments, *self.extra]


#: As users start it: what holds the guest's RAM, and whether it is sandboxed.
SETUPS = [
    pytest.param(Setup(), id="anonymous"),
    pytest.param(Setup(ram="memfd"), id="memfd"),
    pytest.param(Setup(sandbox=True), id="sandbox"),
]
