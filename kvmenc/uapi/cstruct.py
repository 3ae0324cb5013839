"""C structs written the way C writes them: one line, a name and a type, for each field.

::

    class kvm_dirty_log(Struct):
        slot: u32
        padding1: u32
        dirty_bitmap: u64

What ctypes wants (``_fields_``) is made from these lines, so that a field's name, C type and Python
type are said once. A misspelt field raises AttributeError; plain ctypes would keep the value in a
Python attribute that no kernel ever sees. Pointers are ``u64``: they hold addresses.
"""

from __future__ import annotations

import ctypes
import sys
from typing import TYPE_CHECKING, Annotated, Any

u8 = Annotated[int, ctypes.c_uint8]
u16 = Annotated[int, ctypes.c_uint16]
u32 = Annotated[int, ctypes.c_uint32]
u64 = Annotated[int, ctypes.c_uint64]

# Arrays: u64x4 is __u64[4].
u8x3 = Annotated[ctypes.Array[ctypes.c_uint8], ctypes.c_uint8 * 3]
u8x6 = Annotated[ctypes.Array[ctypes.c_uint8], ctypes.c_uint8 * 6]
u8x7 = Annotated[ctypes.Array[ctypes.c_uint8], ctypes.c_uint8 * 7]
u8x8 = Annotated[ctypes.Array[ctypes.c_uint8], ctypes.c_uint8 * 8]
u8x16 = Annotated[ctypes.Array[ctypes.c_uint8], ctypes.c_uint8 * 16]
u8x32 = Annotated[ctypes.Array[ctypes.c_uint8], ctypes.c_uint8 * 32]
u8x64 = Annotated[ctypes.Array[ctypes.c_uint8], ctypes.c_uint8 * 64]
u8x256 = Annotated[ctypes.Array[ctypes.c_uint8], ctypes.c_uint8 * 256]
u8x2048 = Annotated[ctypes.Array[ctypes.c_uint8], ctypes.c_uint8 * 2048]
u16x3 = Annotated[ctypes.Array[ctypes.c_uint16], ctypes.c_uint16 * 3]
u32x3 = Annotated[ctypes.Array[ctypes.c_uint32], ctypes.c_uint32 * 3]
u32x8 = Annotated[ctypes.Array[ctypes.c_uint32], ctypes.c_uint32 * 8]
u64x4 = Annotated[ctypes.Array[ctypes.c_uint64], ctypes.c_uint64 * 4]
u64x5 = Annotated[ctypes.Array[ctypes.c_uint64], ctypes.c_uint64 * 5]
u64x6 = Annotated[ctypes.Array[ctypes.c_uint64], ctypes.c_uint64 * 6]
u64x14 = Annotated[ctypes.Array[ctypes.c_uint64], ctypes.c_uint64 * 14]
u64x16 = Annotated[ctypes.Array[ctypes.c_uint64], ctypes.c_uint64 * 16]


def _ctype(hint: Any) -> Any:  # noqa: ANN401 - Annotated[...], or a Struct or Union
    return hint.__metadata__[0] if hasattr(hint, "__metadata__") else hint


def _reading_annotations(meta: Any) -> Any:  # noqa: ANN401 - ctypes' metaclasses have no types
    """A metaclass like ``meta`` that makes ``_fields_`` out of a class body's annotations."""

    def new(mcs: Any, name: str, bases: tuple[type, ...], body: dict[str, Any]) -> Any:  # noqa: ANN401
        scope = vars(sys.modules[body["__module__"]])
        hints = body.get("__annotations__", {})
        body["_fields_"] = [(field, _ctype(eval(hint, scope))) for field, hint in hints.items()]
        body["__slots__"] = ()
        return meta.__new__(mcs, name, bases, body)

    return type(meta.__name__, (meta,), {"__new__": new})


if TYPE_CHECKING:
    Struct = ctypes.Structure
    Union = ctypes.Union
else:

    class Struct(ctypes.Structure, metaclass=_reading_annotations(type(ctypes.Structure))):
        """A C struct. ``_pack_ = 1`` with ``_layout_ = "ms"`` makes it packed."""

    class Union(ctypes.Union, metaclass=_reading_annotations(type(ctypes.Union))):
        """A C union."""
