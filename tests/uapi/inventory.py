"""Lists what ``kvmenc.uapi`` declares by looking at its modules, so that nothing is forgotten."""

from __future__ import annotations

import ctypes
import importlib
import pkgutil
from typing import TYPE_CHECKING, Any, NamedTuple

from kvmenc import uapi
from kvmenc.uapi.ioc import Ioctl

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

AnyStruct = type[ctypes.Structure] | type[ctypes.Union]


class Member(NamedTuple):
    """A field, or a field of a field, as C spells it: ``io.port``."""

    path: str
    offset: int
    size: int


def modules() -> list[ModuleType]:
    names = (found.name for found in pkgutil.iter_modules(uapi.__path__, "kvmenc.uapi."))
    return [importlib.import_module(name) for name in names]


def _struct_classes() -> dict[str, AnyStruct]:
    return {
        name: value
        for module in modules()
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, (ctypes.Structure, ctypes.Union))
        if value.__module__ == module.__name__ and value._fields_
    }


def structs() -> dict[str, AnyStruct]:
    """Those that have a name in C."""
    return {k: v for k, v in _struct_classes().items() if not k.startswith("_")}


def unnamed() -> dict[str, AnyStruct]:
    """Those that C declares in place, inside another struct."""
    return {k: v for k, v in _struct_classes().items() if k.startswith("_")}


def members(struct: AnyStruct) -> Iterator[Member]:
    """Every member of a struct at every depth; anonymous unions are looked through."""
    for name, ctype in (entry[:2] for entry in struct._fields_):
        field: Any = getattr(struct, name)
        anonymous = name in getattr(struct, "_anonymous_", ())
        if not anonymous:
            yield Member(name, field.offset, ctypes.sizeof(ctype))
        if issubclass(ctype, (ctypes.Structure, ctypes.Union)):
            prefix = "" if anonymous else f"{name}."
            for inner in members(ctype):
                yield Member(prefix + inner.path, field.offset + inner.offset, inner.size)


def ioctls() -> dict[str, Ioctl]:
    """Those that have a name of their own; the revisions of one name are in ``page_enc``."""
    found = (item for module in modules() for item in vars(module).items())
    return {k: v for k, v in found if isinstance(v, Ioctl) and not k.startswith("_")}


def constants() -> dict[str, int]:
    found = (item for module in modules() for item in vars(module).items())
    return {
        k: v
        for k, v in found
        if type(v) is int and (k.isupper() or k.startswith("SYS_")) and not k.startswith("_")
    }
