"""Read both bitmaps of a guest and see which of its pages would go which road.

Runs anywhere: the KVM is fakekvm, the guest a script. On a real VMM of your own only the backend
and the layout differ: ``LocalBackend()``, and your memslots and RAMBlocks.

    python examples/two_bitmaps.py
"""

from __future__ import annotations

import mmap

import fakekvm
from fakekvm.guests import Flip, Halt, Script, WritePages
from kvmenc.backend.fake import FakeBackend
from kvmenc.dirtysource import DirtyLogSource
from kvmenc.encstate.pageenc import PageEncSource, offered_revisions
from kvmenc.guest.scratch import GuestRam
from kvmenc.kvm import KvmSystem
from kvmenc.memory.layout import Layout
from kvmenc.memory.slots import MemSlot, RamBlock
from kvmenc.memory.sync import GuestMaps


def main() -> None:
    """One guest, two memslots of one RAMBlock, two syncs."""
    ram = GuestRam("ram", 4096)
    second = ram.address + 1000 * mmap.PAGESIZE  # offset 1000: no multiple of 64
    layout = Layout(
        slots=[MemSlot(0, 0x0, 160, ram.address), MemSlot(1, 0x100, 3096, second)],
        blocks=[RamBlock("ram", 4096, ram.address)],
    )
    backend = FakeBackend(fakekvm.host_named("sev-v9"))
    with KvmSystem.open(backend) as system, system.create_vm() as scratch:
        revision = offered_revisions(scratch).choose("v9")  # its number has two meanings: say which

    with KvmSystem.open(backend) as system, system.create_vm() as vm:
        vm.enable_manual_protect()
        for slot in layout.slots:
            vm.set_slot(slot)
        vcpu = vm.create_vcpu()
        guest: Script = [
            WritePages(range(0x100, 0x180), 1),  # 128 pages, private as all are at first
            Halt(),
            Flip(0x140, 16, private=False),  # announced, and not written again
            WritePages(range(0x148, 0x14C), 2),
        ]
        backend.kernel.load_guest(vm.fd, 0, guest)

        maps = GuestMaps(layout)
        dirty, private = DirtyLogSource(vm, manual_protect=True), PageEncSource(vm, revision)
        for _ in range(2):
            vcpu.run()
            report = maps.sync(dirty, private)
            print(
                f"dirty: {report.dirty_private_pages} private, {report.dirty_shared_pages} shared;"
                f" flipped: {report.flipped_pages}"
            )
            maps.clear_dirty()  # as when a round has sent them
        vcpu.close()
    ram.close()


if __name__ == "__main__":
    main()
