"""Calls in words: what an error and a recording call them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kvmenc import uapi
from kvmenc.backend.arguments import Shape, argument_of
from kvmenc.backend.recordmodel import Closed, Ioctled, Mapped, Opened, Ran, Seen
from kvmenc.uapi import Ioctl

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kvmenc.backend.recordmodel import Call, Piece

__all__ = ["fields_of", "in_words", "request_name"]
_MOST_DIFFERENCES = 6
_MOST_CHARS = 48


def request_name(request: int, before: Mapping[str, Piece]) -> str:
    """The kernel's name of a request, and of the SEV command that it carries.

    Args:
        request: its number; an ``Ioctl`` says its own name.
        before: the memory that the call names.
    """
    name = request.name if isinstance(request, Ioctl) else uapi.name_of(request)
    shape, arg = argument_of(request).shape, before.get("arg")
    if not (shape and shape.commands and arg and arg.data):
        return name
    kind = getattr(shape.struct.from_buffer_copy(arg.data), shape.commands.selector)
    if request == uapi.KVM_MEMORY_ENCRYPT_OP:
        return f"{name} {uapi.sev_cmd_name(kind)}"
    return f"{name} {shape.commands.selector}={kind}"


def in_words(call: Call) -> str:
    """One call: ``KVM_GET_DIRTY_LOG(fd 1, slot=2)``."""
    match call:
        case Opened(path=path, flags=flags):
            return f"open({path}, {flags:#x})"
        case Closed(fd=fd):
            return f"close(fd {fd})"
        case Mapped(fd=fd, length=length, offset=offset):
            return f"mmap(fd {fd}, {length} bytes from {offset})"
        case Ran(fd=fd, exits=exits):
            return f"KVM_RUN(fd {fd}), {sum(exits.values())} times"
        case Seen(what=what):
            return f"a look at {what}"
        case Ioctled():
            return f"{call.name}(fd {call.fd}, {', '.join(_arguments(call))})"
    raise AssertionError(call)


def _arguments(call: Ioctled) -> list[str]:
    shape, arg = argument_of(_ioctl_of(call)).shape, call.before.get("arg")
    if not shape or not arg:
        return ["NULL" if shape else _value(call.arg)]
    if not arg.data or len(arg.data) != arg.nbytes or not call.known:
        return [f"{arg.nbytes} bytes"]
    try:
        fields = fields_of(shape, arg.data)
    except ValueError:  # a file may claim any size for a struct
        return [f"{arg.nbytes} bytes"]
    left_out = {*shape.pointers, *shape.fds}
    return [f"{k}={_value(v)}" for k, v in fields.items() if k not in left_out and _says(v)] or [
        "0"
    ]


def _ioctl_of(call: Ioctled) -> int:
    """Its request; one of the encryption bitmap's with the name that tells its meaning."""
    pairs = [(revision.get, revision.set) for revision in uapi.REVISIONS.values()]
    known = (it for pair in pairs for it in pair if it == call.request and it.name == call.name)
    return next(known, call.request)


def _says(value: object) -> bool:
    """Whether it is something other than zeros."""
    return any(bytes(value)) if not isinstance(value, int) else value != 0  # type: ignore[call-overload]


def fields_of(shape: Shape, data: bytes) -> dict[str, Any]:
    """A struct's members by name.

    Raises:
        ValueError: fewer bytes than it has.
    """
    struct: Any = shape.struct.from_buffer_copy(data)
    if not hasattr(struct, "_fields_"):
        return {"value": struct.value}
    return {name: getattr(struct, name) for name, *_ in struct._fields_}


def differing_fields(shape: Shape, recorded: bytes, called: bytes) -> list[str]:
    """Those members of a struct that differ, in words."""
    ours, theirs = fields_of(shape, called), fields_of(shape, recorded)
    return [
        f"{name}: recorded {_value(theirs[name])}, called {_value(value)}"
        for name, value in ours.items()
        if _raw(value) != _raw(theirs[name])
    ]


def differing_bytes(recorded: bytes, called: bytes) -> str:
    """Where two blobs of one size differ first, in words."""
    differs = [at for at, (a, b) in enumerate(zip(recorded, called, strict=True)) if a != b]
    first = differs[0]
    ours, theirs = called[first : first + 8].hex(), recorded[first : first + 8].hex()
    return f"{len(differs)} bytes differ, from byte {first}: recorded {theirs}, called {ours}"


def listed(differences: list[str]) -> str:
    """The first of them, and how many more there are."""
    more = len(differences) - _MOST_DIFFERENCES
    shown = "; ".join(differences[:_MOST_DIFFERENCES])
    return f"{shown}; and {more} more" if more > 0 else shown


def _raw(value: object) -> object:
    return value if isinstance(value, int) else bytes(value)  # type: ignore[call-overload]


def _value(value: object) -> str:
    if isinstance(value, int):
        return str(value) if abs(value) < 4096 else hex(value)
    text = bytes(value).hex()  # type: ignore[call-overload]
    return text if len(text) <= _MOST_CHARS else f"{text[:_MOST_CHARS]}..."
