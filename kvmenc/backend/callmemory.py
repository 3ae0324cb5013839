"""The memory that one call names: found from its argument, read, and written again.

Addresses and file descriptors differ from run to run, so structs are kept with symbols instead: an
address is 0 or 1, a descriptor is the how-manieth of its recording. What is secret is kept as
digests of its pages of 4 KiB.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kvmenc import uapi
from kvmenc.backend.recordmodel import CHUNK_BYTES, DIGEST_BYTES, MAX_PIECE_BYTES, Piece
from kvmenc.errors import HostError, errno_name
from kvmenc.tracee.copy import read_bytes, write_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from kvmenc.backend.arguments import Pointed, Shape, Slots, Way

__all__ = [
    "NO_FD",
    "Part",
    "digest_of",
    "parts_of",
    "read",
    "read_part",
    "with_symbols_of",
    "write",
]

#: The symbol of a descriptor that no call of the recording gave.
NO_FD = -1
#: Hygon's lists are followed so far: QEMU's have 512 nodes.
_MAX_NODES = 4096
# Linux v6.12, mm/process_vm_access.c; EINVAL: the end of the range is beyond all addresses.
_UNMAPPED = frozenset({errno.EFAULT, errno.EINVAL})


@dataclass(frozen=True, slots=True)
class Part:
    """One piece of memory that a call names.

    Attributes:
        name: ``arg``, or what leads there: ``arg.data.hdr_uaddr``.
        address: where it is.
        nbytes: its size.
        way: which way its bytes go.
        shape: its struct; None: bytes.
        secret: kept as digests.
        compared: differs only where the caller differs.
        followed: all that it points at is known.
    """

    name: str
    address: int
    nbytes: int
    way: Way
    shape: Shape | None = None
    secret: bool = False
    compared: bool = True
    followed: bool = True


def read(pid: int, address: int, nbytes: int) -> bytes | None:
    """Bytes of a process; None: not all of them are mapped.

    Raises:
        HostError: it may not be read here.
        ProcessLookupError: it has ended.
    """
    try:
        return read_bytes(pid, address, nbytes)
    except OSError as error:
        _only_unmapped(error)
        return None


def parts_of(pid: int, shape: Shape, address: int, slots: Slots) -> Iterator[Part]:
    """A struct and all that it leads to, by what is in memory now.

    Args:
        pid: the process whose memory it is.
        shape: of the struct.
        address: where it is; 0: nowhere.
        slots: the VM's memslots.
    """
    if address:
        yield from _Walk(pid, slots).struct("arg", shape, address)


@dataclass(frozen=True, slots=True)
class _Walk:
    """From a struct to all that it leads to, in one process's memory."""

    pid: int
    slots: Slots

    def struct(self, name: str, shape: Shape, address: int) -> Iterator[Part]:
        size = ctypes.sizeof(shape.struct)
        data = read(self.pid, address, size)
        if data is None:
            yield Part(name, address, size, shape.way, shape, shape.secret)
            return
        struct: Any = shape.struct.from_buffer_copy(data)
        followed = shape.commands is None or (
            getattr(struct, shape.commands.selector) in shape.commands.shapes
        )
        yield Part(name, address, size, shape.way, shape, shape.secret, followed=followed)
        for pointed in shape.pointed:
            yield from self._pointed(name, pointed, struct, address + size)
        if shape.commands and followed:
            yield from self._command(f"{name}.{shape.commands.member}", shape, struct)
        if shape.batch:
            yield from self._batch(name, shape, struct)

    def _pointed(
        self,
        name: str,
        pointed: Pointed,
        struct: Any,  # noqa: ANN401
        after: int,
    ) -> Iterator[Part]:
        address = getattr(struct, pointed.member) if pointed.member else after
        nbytes = pointed.nbytes(struct, self.slots)
        if address and nbytes:
            name = f"{name}.{pointed.member or 'entries'}"
            flags = (pointed.secret, pointed.compared)
            yield Part(name, address, nbytes, pointed.way, None, *flags)

    def _command(self, name: str, shape: Shape, struct: Any) -> Iterator[Part]:  # noqa: ANN401
        assert shape.commands is not None
        inner = shape.commands.shapes[getattr(struct, shape.commands.selector)]
        address = getattr(struct, shape.commands.member)
        if inner and address:
            yield from self.struct(name, inner, address)

    def _batch(self, name: str, shape: Shape, struct: Any) -> Iterator[Part]:  # noqa: ANN401
        """Each node's command, as far as the list can be read."""
        inner = shape.batch.get(struct.command_id)
        address = struct.csv_batch_list_uaddr
        size = ctypes.sizeof(uapi.kvm_csv_batch_list_node)
        for number in range(_MAX_NODES):
            data = read(self.pid, address, size) if address else None
            if data is None or inner is None:
                return
            node = uapi.kvm_csv_batch_list_node.from_buffer_copy(data)
            yield from self.struct(f"{name}.node{number}", inner, node.cmd_data_addr)
            address = node.next_cmd_addr


def read_part(pid: int, part: Part, fds: Mapping[int, int], *, contents: bool) -> Piece:
    """What is in memory there, as it is kept.

    Args:
        pid: the process.
        part: what to read.
        fds: symbols of file descriptors.
        contents: secrets too are kept as they are.
    """
    data = read(pid, part.address, part.nbytes) if part.nbytes <= MAX_PIECE_BYTES else None
    if data is None:
        return Piece(nbytes=part.nbytes)
    if part.secret and not contents:
        return Piece(nbytes=part.nbytes, digests=_digests_of(data))
    if part.shape:
        return Piece(nbytes=part.nbytes, data=_symbols(part.shape, data, fds))
    return Piece(nbytes=part.nbytes, data=data)


def _digests_of(data: bytes) -> bytes:
    """The digests of each 4 KiB, one after another."""
    return b"".join(
        digest_of(data[at : at + CHUNK_BYTES]) for at in range(0, len(data), CHUNK_BYTES)
    )


def digest_of(chunk: bytes) -> bytes:
    """Of one chunk."""
    return hashlib.blake2b(chunk, digest_size=DIGEST_BYTES).digest()


def _symbols(shape: Shape, data: bytes, fds: Mapping[int, int]) -> bytes:
    """A struct's bytes with symbols for its addresses and descriptors."""
    struct: Any = shape.struct.from_buffer_copy(data)
    for name in shape.pointers:
        setattr(struct, name, int(getattr(struct, name) != 0))
    for name in shape.fds:
        setattr(struct, name, fds.get(getattr(struct, name), NO_FD))
    return bytes(struct)


def with_symbols_of(shape: Shape, data: bytes, caller: bytes) -> bytes:
    """Kept bytes with the caller's own addresses and descriptors put back."""
    struct: Any = shape.struct.from_buffer_copy(data)
    own: Any = shape.struct.from_buffer_copy(caller)
    for name in (*shape.pointers, *shape.fds):
        setattr(struct, name, getattr(own, name))
    return bytes(struct)


def write(pid: int, address: int, data: bytes) -> bool:
    """Write to a process's memory; False: it is not mapped."""
    try:
        write_bytes(pid, address, data)
    except OSError as error:
        _only_unmapped(error)
        return False
    return True


def _only_unmapped(error: OSError) -> None:
    if error.errno == errno.ESRCH:
        raise error
    if error.errno not in _UNMAPPED:
        name = errno_name(error.errno or 0)
        raise HostError(
            f"process_vm_readv of a process of ours fails: {name}: is there a sandbox that forbids"
            " it, or a program that may not be read?"
        ) from error
