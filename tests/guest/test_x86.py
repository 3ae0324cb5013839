"""The scratch guest's bytes: what an independent disassembler makes of them, and the table."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
from typing import TYPE_CHECKING

import pytest

from kvmenc.guest.program import Flip, Tick, WriteList, WriteRun
from kvmenc.guest.x86 import CODE_GPA, PAGE, TABLE_GPA, FlipBy, assemble, machine_code

if TYPE_CHECKING:
    from pathlib import Path

EXPECTED = """
mov $0x2000,%esi
mov (%esi),%eax
mov 0x4(%esi),%ebx
mov 0x8(%esi),%ecx
mov 0xc(%esi),%edx
add $0x10,%esi
cmp $0x0,%eax
je 2d
cmp $0x1,%eax
je 39
cmp $0x2,%eax
je 44
cmp $0x3,%eax
je 4a
cmp $0xc,%eax
je 4d
hlt
mov %ebp,(%ebx)
add $0x1000,%ebx
loop 2d
jmp 5
mov (%ebx),%edi
mov %ebp,(%edi)
add $0x4,%ebx
loop 39
jmp 5
mov %ebp,%eax
out %eax,$0xe4
jmp 5
inc %ebp
jmp 0
""".strip().splitlines()


@pytest.mark.skipif(not shutil.which("objdump"), reason="objdump (binutils) is not installed")
@pytest.mark.parametrize(
    ("flip_by", "flip"),
    [("port", ["out %eax,$0xe8", "nop"]), ("vmcall", ["vmcall"]), ("vmmcall", ["vmmcall"])],
)
def test_the_code_is_what_its_listing_says(
    tmp_path: Path, flip_by: FlipBy, flip: list[str]
) -> None:
    binary = tmp_path / "guest.bin"
    binary.write_bytes(machine_code(flip_by))
    listing = subprocess.run(
        ["objdump", "-D", "-b", "binary", "-m", "i386", str(binary)],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    lines = re.findall(r"^ +[0-9a-f]+:\t[0-9a-f ]+\t(.*)$", listing, re.MULTILINE)
    found = [re.sub(r" 0x([0-9a-f]+)$", r" \1", " ".join(line.split())) for line in lines]
    assert found == [*EXPECTED, *flip, "jmp 5"]


def test_the_table_holds_one_record_a_step_and_lists_lie_behind_it() -> None:
    program = (WriteRun(0x100, 3), WriteList((7, 9)), Flip(5, 2, private=True), Tick())
    image = assemble(program)
    table = image[TABLE_GPA - CODE_GPA :]
    records = [struct.unpack_from("<4I", table, 16 * i) for i in range(5)]
    list_gpa = TABLE_GPA + 5 * 16
    assert records == [
        (0, 0x100 * PAGE, 3, 0),
        (1, list_gpa, 2, 0),
        (12, 5 * PAGE, 2, 16),
        (2, 0, 0, 0),
        (3, 0, 0, 0),
    ]
    assert struct.unpack_from("<2I", image, list_gpa - CODE_GPA) == (7 * PAGE, 9 * PAGE)


def test_a_flip_to_shared_has_no_encrypted_attribute() -> None:
    image = assemble((Flip(5, 2, private=False),))
    assert struct.unpack_from("<4I", image, TABLE_GPA - CODE_GPA) == (12, 5 * PAGE, 2, 0)
