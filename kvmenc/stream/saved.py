"""What libvirt puts before a stream: a domain that ``virsh save`` saved, or a snapshot's memory.

libvirt, src/qemu/qemu_saveimage.h: a header of numbers as the host has them, then the domain's XML.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kvmenc.stream.window import Window

__all__ = ["skip_saved_header"]

_SAVED = struct.unpack(">QQ", b"LibvirtQemudSave")
_PARTIAL = struct.unpack(">QQ", b"LibvirtQemudPart")
#: Magic, version, bytes of data, whether the guest ran, format, a cookie's offset, 14 of no use.
_HEADER_BYTES = 16 + 19 * 4
_RAW = 0
_PACKERS = {1: "gzip", 2: "bzip2", 3: "xz", 4: "lzop", 5: "zstd"}


def skip_saved_header(window: Window) -> None:
    """Go past it, if it is there.

    Raises:
        StreamError: what follows is packed, or is no stream, or was not saved to its end.
    """
    magic = window.peek(">QQ")
    if magic == _PARTIAL:
        raise window.error("libvirt has not saved this domain to its end")
    if magic != _SAVED:
        return
    header = window.take(_HEADER_BYTES, "libvirt's header")[16:]
    # Versions are small numbers: the one byte that is not zero tells the order.
    size, _, form = struct.unpack_from("<4x3I" if header[0] else ">4x3I", header)
    if form != _RAW:
        raise window.error(_other_form(form, _HEADER_BYTES + size))
    window.skip(size, "libvirt's description of the domain")


def _other_form(form: int, start: int) -> str:
    if packer := _PACKERS.get(form):
        todo = f"unpack it first: tail -c +{start + 1} FILE | {packer} -dc >guest.stream"
        return f"libvirt saved this domain packed by {packer}: {todo}"
    return f"libvirt saved this domain in form {form}, not raw: there is no stream in it"
