"""Text of QEMU: real, from tests/data/qemu, and made up."""

from __future__ import annotations

from pathlib import Path

from kvmenc.qemu.text import QemuText

DATA = Path(__file__).parent.parent / "data" / "qemu"
MACHINES = ("pc", "q35", "pflash", "microvm")
KINDS = ("mtree", "ramblock", "trace")


def path_of(machine: str, kind: str) -> Path:
    return DATA / f"{machine}-{kind}.txt"


def real(machine: str, kind: str) -> QemuText:
    return QemuText(f"{machine}-{kind}.txt", path_of(machine, kind).read_text())


def mtree(*ranges: str, smram: tuple[str, ...] = ()) -> QemuText:
    """FlatViews with these ranges, ``start-last (kind): rest``."""
    lines = ["FlatView #0", ' AS "memory", root: system', " Root memory region: system"]
    lines += [_range(one) for one in ranges]
    if smram:
        lines += ["", "FlatView #1", ' AS "KVM-SMRAM", root: mem-container-smram']
        lines += [_range(one) for one in smram]
    return QemuText("mtree.txt", "\n".join(lines) + "\n\n")


def _range(one: str) -> str:
    where, kind, rest = one.split(" ", 2)
    start, last = (int(it, 16) for it in where.split("-"))
    return f"  {start:016x}-{last:016x} (prio 0, {kind}): {rest}"


def ramblock(*blocks: tuple[str, int, int], new: bool = False) -> QemuText:
    """Blocks of name, size and address; as QEMU 8.0 prints them, or without the address."""
    ram_addr = 0
    lines = ["Block Name    PSize              Offset               Used              Total"]
    lines[0] += "                HVA  RO" if new else ""
    for name, size, addr in blocks:
        line = f"{name:>24}    4 KiB  0x{ram_addr:016x} 0x{size:016x} 0x{size:016x}"
        lines.append(line + (f" 0x{addr:016x}  rw" if new else ""))
        ram_addr += size + 0x40000
    return QemuText("ramblock.txt", "\n".join(lines) + "\n")


def trace(*slots: str) -> QemuText:
    """Events, each from ``Slot#`` on."""
    return QemuText("trace.txt", "".join(f"kvm_set_user_memory {it}\n" for it in slots))
