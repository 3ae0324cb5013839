"""Every number, size and offset of kvmenc.uapi is the kernel headers'."""

from __future__ import annotations

import ctypes
import re
from typing import TYPE_CHECKING

import pytest

from kvmenc.uapi.others import NAMES
from tests.uapi.inventory import constants, ioctls, members, structs, unnamed
from tests.uapi.outside import CONSTANTS_ABSENT, CONSTANTS_SINCE, STRUCTS_ABSENT

if TYPE_CHECKING:
    from tests.uapi.conftest import Headers

IN_HEADERS = structs().keys() - STRUCTS_ABSENT.keys()


@pytest.mark.headers
def test_ioctl_numbers_are_those_of_the_headers(in_c: dict[str, int]) -> None:
    assert {name: int(number) for name, number in ioctls().items()} == {
        name: in_c[name] for name in ioctls()
    }


@pytest.mark.headers
def test_ioctls_that_are_known_by_name_only_have_these_numbers(in_c: dict[str, int]) -> None:
    assert {name: number for number, name in NAMES.items()} == {
        name: in_c[name] for name in NAMES.values()
    }


@pytest.mark.headers
def test_constants_are_those_of_the_headers(in_c: dict[str, int], headers: Headers) -> None:
    too_new = {name for name, since in CONSTANTS_SINCE.items() if since.version > headers.version}
    ours = {
        name: value % (1 << 64)
        for name, value in constants().items()
        if name not in CONSTANTS_ABSENT.keys() | too_new
    }
    assert ours == {name: in_c[name] for name in ours}


@pytest.mark.headers
def test_struct_sizes_are_those_of_the_headers(in_c: dict[str, int]) -> None:
    assert {name: ctypes.sizeof(structs()[name]) for name in IN_HEADERS} == {
        name: in_c[f"sizeof:{name}"] for name in IN_HEADERS
    }


@pytest.mark.headers
def test_every_member_is_where_the_headers_have_it(in_c: dict[str, int]) -> None:
    ours = {f"{name}.{m.path}": m[1:] for name in IN_HEADERS for m in members(structs()[name])}
    assert ours == {path: (in_c[f"{path}@"], in_c[f"{path}#"]) for path in ours}


@pytest.mark.headers
def test_what_is_said_to_be_in_no_header_is_in_none(headers: Headers) -> None:
    folders = headers.include_dirs
    paths = (f / p for f in folders for p in ("linux/kvm.h", "asm/kvm.h", "linux/psp-sev.h"))
    text = "\n".join(path.read_text() for path in paths if path.exists())
    words = set(re.findall(r"\w+", text))
    assert "kvm_dirty_log" in words
    assert not words & (STRUCTS_ABSENT.keys() | CONSTANTS_ABSENT.keys())


def test_structs_in_no_header_have_the_layout_written_down() -> None:
    ours = {
        name: (ctypes.sizeof(structs()[name]), [tuple(m) for m in members(structs()[name])])
        for name in STRUCTS_ABSENT
    }
    assert ours == STRUCTS_ABSENT


def test_constants_in_no_old_header_have_the_value_written_down() -> None:
    written = CONSTANTS_ABSENT | {name: since.value for name, since in CONSTANTS_SINCE.items()}
    assert {name: constants()[name] for name in written} == written


def test_every_struct_without_a_name_in_c_is_part_of_one_that_has_a_name() -> None:
    parts = {ctype for struct in structs().values() for _, ctype in _fields(struct)}
    parts |= {ctype for part in list(parts & _unnamed()) for _, ctype in _fields(part)}
    assert _unnamed() <= parts


def test_no_member_hides_behind_a_name_that_c_does_not_have() -> None:
    paths = {m.path for m in members(structs()["kvm_run"])}
    assert {"exit_reason", "io", "io.port", "hypercall.args", "memory_fault.gpa"} <= paths
    assert not any(path.startswith("exit.") for path in paths)


def _unnamed() -> set[type]:
    return set(unnamed().values())


def _fields(struct: type) -> list[tuple[str, type]]:
    return list(struct._fields_)  # type: ignore[attr-defined]
