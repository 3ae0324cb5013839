"""A small VM of our own, with the shapes that go wrong in a layout, and a guest that runs in it.

::

    gfn      0x0 ..   0x9f   slot 0   RAMBlock ram   offset 0
            0xa0 ..   0xdf   hole
            0xe0 ..   0xff   slot 1   RAMBlock bios  offset 0     read-only, no dirty log
           0x100 .. 0x4052   slot 2   RAMBlock ram   offset 173   173 % 64 = 45: a shift is needed
         0x10000 .. 0x11fe4  slot 3   RAMBlock dimm0 offset 0     ends within a word
"""

from __future__ import annotations

import ctypes
import mmap
from contextlib import ExitStack
from typing import TYPE_CHECKING, Self

from kvmenc import uapi
from kvmenc.backend import unmap
from kvmenc.backend.kinds import fake_kernel, is_fake
from kvmenc.dirtysource import DirtyLogSource, DirtyRingSource
from kvmenc.guest.fake import script_of
from kvmenc.guest.x86 import CODE_GPA, PAGE, FlipBy, assemble, enter_flat_mode
from kvmenc.kvm import KvmSystem
from kvmenc.memory.layout import Layout
from kvmenc.memory.slots import MemSlot, RamBlock

if TYPE_CHECKING:
    from kvmenc.backend import Backend
    from kvmenc.guest.program import Program

__all__ = ["PAGE", "GuestRam", "ScratchVm"]

RAM_PAGES, BIOS_PAGES, DIMM_PAGES = 16384, 32, 8165
LOW_PAGES, HIGH_OFFSET = 160, 173


class GuestRam:
    """Anonymous memory for one RAMBlock."""

    def __init__(self, name: str, npages: int) -> None:
        self.area = mmap.mmap(-1, npages * PAGE)
        self._pin = ctypes.c_char.from_buffer(self.area)  # keeps the mapping while addresses live
        self.address = ctypes.addressof(self._pin)
        self.name = name
        self.npages = npages

    def close(self) -> None:
        """Unmap it."""
        del self._pin
        unmap(self.area)


class ScratchVm:
    """A VM on any backend, with one vCPU and the layout above.

    Args:
        backend: who carries out the ioctls.
        ring_bytes: track dirty pages in a ring of this size; 0 uses the dirty log.
        manual_protect: read the dirty log without clearing it.

    Raises:
        HostError: the KVM at hand cannot do it.
    """

    def __init__(
        self, backend: Backend, *, ring_bytes: int = 0, manual_protect: bool = True
    ) -> None:
        self._cleanup = ExitStack()
        try:
            self._build(backend, ring_bytes, manual_protect=manual_protect and not ring_bytes)
        except BaseException:
            self._cleanup.close()
            raise

    def _build(self, backend: Backend, ring_bytes: int, *, manual_protect: bool) -> None:
        self.backend = backend
        self.ram = self._ram("ram", RAM_PAGES)
        self.bios = self._ram("bios", BIOS_PAGES)
        self.dimm = self._ram("dimm0", DIMM_PAGES)
        self.layout = self._layout()
        self.system = self._cleanup.enter_context(KvmSystem.open(backend))
        self.vm = self._cleanup.enter_context(self.system.create_vm())
        if ring_bytes:
            self.vm.enable_dirty_ring(ring_bytes)
        if manual_protect:
            self.vm.enable_manual_protect()
        for slot in self.layout.slots:
            self.vm.set_slot(slot)
        self.vcpu = self._cleanup.enter_context(self.vm.create_vcpu())
        self._manual_protect = manual_protect

    def _ram(self, name: str, npages: int) -> GuestRam:
        ram = GuestRam(name, npages)
        self._cleanup.callback(ram.close)
        return ram

    def _layout(self) -> Layout:
        ram, bios, dimm = self.ram.address, self.bios.address, self.dimm.address
        high = ram + HIGH_OFFSET * PAGE
        return Layout(
            slots=[
                MemSlot(0, 0x0, LOW_PAGES, ram),
                MemSlot(1, 0xE0, BIOS_PAGES, bios, readonly=True, log_dirty=False),
                MemSlot(2, 0x100, RAM_PAGES - HIGH_OFFSET, high),
                MemSlot(3, 0x10000, DIMM_PAGES, dimm),
            ],
            blocks=[
                RamBlock("ram", RAM_PAGES, ram),
                RamBlock("bios", BIOS_PAGES, bios, override="shared"),
                RamBlock("dimm0", DIMM_PAGES, dimm),
            ],
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the VM and free its memory."""
        self._cleanup.close()

    def dirty_source(self) -> DirtyLogSource | DirtyRingSource:
        """What to read this VM's dirty bits from."""
        if self.vcpu.ring is None:
            return DirtyLogSource(self.vm, manual_protect=self._manual_protect)
        return self.dirty_ring_source()

    def dirty_ring_source(self) -> DirtyRingSource:
        """The same for a VM that was made with a ring."""
        rings = [self.vcpu.ring] if self.vcpu.ring else []
        return DirtyRingSource(self.vm, rings, self.layout.slots)

    def load(self, program: Program, flip_by: FlipBy = "port") -> None:
        """Make the vCPU ready to run ``program``: as machine code, or as the fake's script."""
        if is_fake(self.backend):
            if kernel := fake_kernel(self.backend):
                kernel.load_guest(self.vm.fd, 0, script_of(program))
            return
        image = assemble(program, flip_by)
        if CODE_GPA + len(image) > LOW_PAGES * PAGE:
            msg = f"the program's image of {len(image)} bytes does not fit below gfn {LOW_PAGES}"
            raise ValueError(msg)
        self.ram.area[CODE_GPA : CODE_GPA + len(image)] = image
        enter_flat_mode(self.vcpu)

    def deliver_hypercalls(self) -> None:
        """Ask for KVM_HC_MAP_GPA_RANGE as an exit."""
        self.vm.enable_cap(uapi.KVM_CAP_EXIT_HYPERCALL, 1 << uapi.KVM_HC_MAP_GPA_RANGE)
