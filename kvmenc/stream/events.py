"""What a reader of a stream comes upon, in the order of the file. Pages come as batches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from kvmenc.stream.batch import Batch

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from kvmenc.stream.batch import Block
    from kvmenc.stream.privatestate import PrivateRange
    from kvmenc.stream.wire import Section

__all__ = [
    "BlockTable",
    "Call",
    "CallEnd",
    "CpuStates",
    "Device",
    "End",
    "Event",
    "Flush",
    "PrivateBitmaps",
    "Session",
    "SharedList",
]


class BlockTable(NamedTuple):
    """The guest's RAMBlocks, before any page."""

    blocks: tuple[Block, ...]


class Call(NamedTuple):
    """QEMU begins to write RAM: to set up (START), a slice (PART), or the rest (END)."""

    section: Section


class CallEnd(NamedTuple):
    """What the last Call began is over."""


class Session(NamedTuple):
    """The firmware's session, in the first encrypted page.

    Attributes:
        policy: the guest's.
        pdh_bytes: size of the certificate.
        session_bytes: size of the session data.
        size_bytes: of all that, which is in the size of the page's record.
        block: number of that page's RAMBlock.
    """

    policy: int
    pdh_bytes: int
    session_bytes: int
    size_bytes: int
    block: int


@dataclass(frozen=True, slots=True)
class PrivateBitmaps:
    """Private/shared by gfn, as bitmaps; bits past the last page are 0.

    Attributes:
        ranges: none twice, in the order of the stream.
        size_bytes: of the record.
    """

    ranges: list[PrivateRange]
    size_bytes: int


@dataclass(frozen=True, slots=True)
class SharedList:
    """The shared ranges of gfns; what is in none is private.

    Attributes:
        starts: first gfns.
        ends: exclusive.
        size_bytes: of the record.
    """

    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    size_bytes: int


class CpuStates(NamedTuple):
    """Encrypted registers of vCPUs: how many, and bytes of the record."""

    vcpus: int
    size_bytes: int


class Flush(NamedTuple):
    """Multifd's connections are brought together here: pages went over them, not in this file."""


class Device(NamedTuple):
    """A device's state.

    Attributes:
        name: of its section.
        instance_id: which of them.
        size_bytes: of the whole section.
    """

    name: str
    instance_id: int
    size_bytes: int


class End(NamedTuple):
    """No more is read.

    Attributes:
        description_bytes: of the description of the devices at the end; 0: there is none.
        unread_bytes: that follow; None: the file is none that tells its size.
        why: there are some that cannot be told, in words; empty: the stream is read to its end.
    """

    description_bytes: int
    unread_bytes: int | None
    why: str


#: Anything of the above.
Event = (
    BlockTable
    | Call
    | CallEnd
    | Session
    | Batch
    | PrivateBitmaps
    | SharedList
    | CpuStates
    | Flush
    | Device
    | End
)
