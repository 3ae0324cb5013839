"""The scratch guest in machine code: 32-bit, flat, no paging, no interrupts, no BIOS.

It walks a table of records ``{op, ebx, ecx, edx}`` in guest memory::

    start: mov  esi, TABLE
    next:  mov  eax, [esi]          ; op
           mov  ebx, [esi+4]
           mov  ecx, [esi+8]
           mov  edx, [esi+12]
           add  esi, 16
           cmp  eax, 0 / je run     ; and so on for list, tick, again, flip
           hlt
    run:   mov  [ebx], ebp          ; ebp = number of the pass
           add  ebx, 4096
           loop run / jmp next
    list:  mov  edi, [ebx]
           mov  [edi], ebp
           add  ebx, 4
           loop list / jmp next
    tick:  mov  eax, ebp
           out  TICK_PORT, eax / jmp next
    again: inc  ebp / jmp start
    flip:  <hypercall> / jmp next   ; eax = 12, ebx = gpa, ecx = pages, edx = attributes

The flip's registers are those of KVM's hypercalls (Linux v6.12,
Documentation/virt/kvm/x86/hypercalls.rst). Where the host cannot deliver the hypercall's exit, a
write to ``FLIP_PORT`` with the same registers stands in for it.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Literal

from kvmenc import uapi
from kvmenc.guest.program import Flip, Program, Step, Tick, WriteList, WriteRun

if TYPE_CHECKING:
    from kvmenc.kvm import Vcpu

__all__ = [
    "CODE_GPA",
    "FLIP_PORT",
    "PAGE",
    "TICK_PORT",
    "FlipBy",
    "assemble",
    "enter_flat_mode",
]

PAGE = 4096
CODE_GPA = 0x1000
TABLE_GPA = 0x2000
TICK_PORT = 0xE4
FLIP_PORT = 0xE8

FlipBy = Literal["port", "vmcall", "vmmcall"]

_FLIP = {
    "port": bytes([0xE7, FLIP_PORT, 0x90]),
    "vmcall": b"\x0f\x01\xc1",
    "vmmcall": b"\x0f\x01\xd9",
}

_OP_RUN, _OP_LIST, _OP_TICK, _OP_AGAIN, _OP_FLIP = 0, 1, 2, 3, uapi.KVM_HC_MAP_GPA_RANGE

# Assembled with binutils from the text above; a test disassembles it where objdump is there.
_CODE = bytes.fromhex(
    "be00200000"  # start: mov $TABLE_GPA, %esi
    "8b06 8b5e04 8b4e08 8b560c 83c610"  # next: load a record
    "83f800 7415 83f801 741c 83f802 7422 83f803 7423 83f80c 7421 f4"
    "892b 81c300100000 e2f6 ebcc"  # run
    "8b3b 892f 83c304 e2f7 ebc1"  # list
    "89e8 e7e4 ebbb"  # tick
    "45 ebb3"  # again
)
_JUMP_TO_NEXT = bytes.fromhex("ebb3")


def machine_code(flip_by: FlipBy) -> bytes:
    """The guest's code, to be run from ``CODE_GPA``."""
    return _CODE + _FLIP[flip_by] + _JUMP_TO_NEXT


def assemble(program: Program, flip_by: FlipBy = "port") -> bytes:
    """What to put at ``CODE_GPA``: code, table, and the page lists behind it.

    Args:
        program: the steps; every gfn below 2^20 (the guest has 32-bit addresses).
        flip_by: how a flip is announced.
    """
    table_bytes = 16 * (len(program) + 1)
    records, lists = [], bytearray()
    for step in program:
        records.append(_record(step, TABLE_GPA + table_bytes + len(lists)))
        if isinstance(step, WriteList):
            lists += struct.pack(f"<{len(step.gfns)}I", *(gfn * PAGE for gfn in step.gfns))
    records.append((_OP_AGAIN, 0, 0, 0))
    table = b"".join(struct.pack("<4I", *record) for record in records)
    code = machine_code(flip_by)
    return code.ljust(TABLE_GPA - CODE_GPA, b"\0") + table + bytes(lists)


def _record(step: Step, list_gpa: int) -> tuple[int, int, int, int]:
    match step:
        case WriteRun(gfn, npages):
            return _OP_RUN, gfn * PAGE, npages, 0
        case WriteList(gfns):
            return _OP_LIST, list_gpa, len(gfns), 0
        case Flip(gfn, npages, private):
            attributes = uapi.KVM_MAP_GPA_RANGE_ENCRYPTED if private else 0
            return _OP_FLIP, gfn * PAGE, npages, attributes
        case Tick():
            return _OP_TICK, 0, 0, 0


def enter_flat_mode(vcpu: Vcpu) -> None:
    """Protected mode, flat 4 GiB segments, no paging; about to run the code at ``CODE_GPA``."""
    sregs = vcpu.special_registers()
    for name in ("cs", "ds", "es", "fs", "gs", "ss"):
        is_code = name == "cs"
        segment = uapi.kvm_segment(
            base=0, limit=0xFFFFFFFF, selector=8 if is_code else 16, present=1, s=1, db=1, g=1
        )
        segment.type = 11 if is_code else 3  # execute/read, read/write; both accessed
        setattr(sregs, name, segment)
    sregs.cr0 |= 1  # PE
    vcpu.set_special_registers(sregs)
    vcpu.set_registers(uapi.kvm_regs(rip=CODE_GPA, rflags=2))
