"""The table knows every ioctl of ``kvmenc.uapi``, and its rows fit their structs."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

import pytest

from kvmenc import uapi
from kvmenc.backend import arguments
from kvmenc.backend.arguments import Shape, argument_of
from tests.uapi.inventory import ioctls

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Its argument is not the struct that its number tells of.
_OTHERWISE = {uapi.KVM_MEMORY_ENCRYPT_OP}


def shapes() -> Iterator[Shape]:
    for request in ioctls().values():
        if shape := argument_of(request).shape:
            yield shape
            if shape.commands:
                yield from filter(None, shape.commands.shapes.values())


@pytest.mark.parametrize("name", sorted(ioctls()))
def test_an_ioctl_is_known_and_its_struct_has_the_size_of_its_number(name: str) -> None:
    request = ioctls()[name]
    argument = argument_of(request)
    if request in uapi.NEVER_PROBE and request != uapi.KVM_RESET_DIRTY_RINGS:
        assert not argument.known
        return
    assert argument.known
    if request not in _OTHERWISE:
        assert request.size == (ctypes.sizeof(argument.shape.struct) if argument.shape else 0)


def test_members_that_are_named_exist() -> None:
    """A misspelt one would be followed nowhere, and its address be compared."""
    checked = 0
    for shape in shapes():
        names = {name for name, *_ in getattr(shape.struct, "_fields_", ())}
        assert {*shape.pointers, *shape.fds} <= names
        checked += len(names)
    assert checked > 100


def test_every_address_in_a_struct_is_a_symbol() -> None:
    """By name: what ends in uaddr or bitmap, and the like."""
    for shape in shapes():
        names = {name for name, *_ in getattr(shape.struct, "_fields_", ())}
        addresses = {it for it in names if it.endswith(("uaddr", "_bitmap", "_addr"))}
        assert addresses - {"guest_phys_addr", "interrupt_bitmap"} <= set(shape.pointers)


def test_every_sev_command_with_a_struct_in_uapi_is_followed() -> None:
    shape = argument_of(uapi.KVM_MEMORY_ENCRYPT_OP).shape
    assert shape
    assert shape.commands
    structs = {it.struct for it in shape.commands.shapes.values() if it}
    declared = {
        value
        for name, value in vars(uapi).items()
        if name.startswith(("kvm_sev_", "kvm_csv_command")) and value is not uapi.kvm_sev_cmd
    }
    assert declared == structs


def test_a_number_of_several_meanings_is_known_by_its_name_only() -> None:
    number = uapi.REVISIONS["v10"].get
    assert argument_of(number).shape != argument_of(uapi.REVISIONS["v9"].get).shape
    assert not argument_of(int(number)).known


def test_bitmaps_are_whole_words() -> None:
    log = argument_of(uapi.KVM_GET_DIRTY_LOG).shape
    assert log
    (pointed,) = log.pointed
    for npages, nbytes in ((1, 8), (64, 8), (65, 16)):
        assert pointed.nbytes(uapi.kvm_dirty_log(slot=3), {3: npages}) == nbytes
    assert pointed.nbytes(uapi.kvm_dirty_log(slot=4), {3: 64}) == 0
    assert arguments.Way.OUT in pointed.way
