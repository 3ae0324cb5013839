"""KVM_CSV_COMMAND_BATCH: many pages in one command, on hosts of Hygon's.

Source: openEuler's kernel, arch/x86/kvm/svm/csv.c, csv_command_batch and what it calls.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from fakekvm import sevdecode as abi
from fakekvm.decode import PAGE_BYTES
from fakekvm.errors import oserror
from fakekvm.sevvm import Telling

if TYPE_CHECKING:
    from fakekvm.sevvm import SevVm

__all__ = ["command_batch"]

_POOL_PAGES = 4094  # g_trans_mempool: what is on the wire, of all


def command_batch(sev: SevVm, command: abi.Command) -> None:
    """Carry out the same command for each node of a list.

    Raises:
        OSError: whatever is wrong with a node is EFAULT, not the errno of its command alone.
    """
    sev.need_active()
    batch = abi.BATCH.read(sev.memory, command.data)
    if not batch.list_uaddr:
        return
    carry_out = {abi.SEND_UPDATE_DATA: _send, abi.RECEIVE_UPDATE_DATA: _receive}
    if batch.command_id not in carry_out:
        raise oserror(errno.EINVAL)
    carry_out[batch.command_id](sev, command, _packets(sev, batch.list_uaddr))


def _packets(sev: SevVm, address: int) -> list[abi.Packet]:
    """What the nodes point to, in their order; a ring has room for so many, and the pool too."""
    packets: list[abi.Packet] = []
    used_bytes = 0
    while address:
        node = abi.NODE.read(sev.memory, address)
        if len(packets) >= _POOL_PAGES or used_bytes >= _POOL_PAGES * PAGE_BYTES:
            raise oserror(errno.EFAULT)
        packets.append(_checked(sev, node.cmd_data_addr))
        used_bytes += packets[-1].trans_len
        address = node.next_cmd_addr
    return packets


def _checked(sev: SevVm, address: int) -> abi.Packet:
    packet = abi.PACKET.read(sev.memory, address)
    try:
        if not packet.is_whole:
            raise oserror(errno.EINVAL)
        if packet.is_too_large:
            raise oserror(errno.ENOMEM)
        sev.pin(packet.guest_uaddr, 1)
    except OSError as error:
        raise oserror(errno.EFAULT) from error
    return packet


def _send(sev: SevVm, command: abi.Command, packets: list[abi.Packet]) -> None:
    pages = [(it, sev.memory.read(it.guest_uaddr, it.guest_len)) for it in packets]
    with Telling(command):
        sealed = sev.firmware().send_many(sev.handle, pages, command)
    for packet, (hdr, trans) in zip(packets, sealed, strict=True):
        sev.memory.write(packet.trans_uaddr, trans)
        sev.memory.write(packet.hdr_uaddr, hdr.ljust(packet.hdr_len, b"\0"))


def _receive(sev: SevVm, command: abi.Command, packets: list[abi.Packet]) -> None:
    sealed = [(packet, _sealed(sev, packet)) for packet in packets]
    with Telling(command):
        sev.firmware().receive_many(sev.handle, sev.memory, sealed, command)


def _sealed(sev: SevVm, packet: abi.Packet) -> tuple[bytes, bytes]:
    try:
        hdr = sev.blob(packet.hdr_uaddr, packet.hdr_len)
        return hdr, sev.blob(packet.trans_uaddr, packet.trans_len)
    except OSError as error:
        raise oserror(errno.EFAULT) from error
