"""What a RAMBlock's pages are, whatever the kernel says: known by its name in QEMU."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kvmenc.memory.slots import State

__all__ = ["override_of"]

_ROM_NAMES = ("pc.bios", "pc.rom", "isa-bios")


def override_of(name: str) -> State | None:
    """The state that QEMU itself settles, None where the guest does.

    The display's memory is shared because the host draws from it; a guest that maps it encrypted
    would show noise. The first flash holds the firmware that LAUNCH_UPDATE encrypted before the
    guest could announce anything; every other ROM is written by QEMU and read by the guest, so it
    is plain text. Source: QEMU's posting sev-migration-v1 (2020), which set the two flash
    devices' bits by name.
    """
    region = name.rpartition("/")[2]
    if region == "system.flash0":
        return "private"
    is_rom = region.startswith("system.flash") or region.endswith(".rom") or "/rom@" in name
    return "shared" if is_rom or region == "vga.vram" or region in _ROM_NAMES else None
