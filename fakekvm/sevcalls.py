"""KVM_MEMORY_ENCRYPT_OP on a VM: the kernel's half of each SEV command.

Source: Linux v6.12, arch/x86/kvm/svm/sev.c, sev_mem_enc_ioctl and the functions in its switch; the
checks are in the kernel's order.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from fakekvm import host
from fakekvm import sevdecode as abi
from fakekvm.decode import U64
from fakekvm.errors import oserror
from fakekvm.sevbatch import command_batch
from fakekvm.sevcerts import Files
from fakekvm.sevfirmware import FirmwareError
from fakekvm.sevmemory import NOTHING
from fakekvm.sevvm import Telling, refused

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fakekvm.sevfirmware import Sealed
    from fakekvm.sevmemory import Pieces
    from fakekvm.sevvm import SevVm
    from fakekvm.vm import Vm

    #: Returns what to store once the firmware is done.
    _Carrier = Callable[[Vm, abi.Command], Pieces | None]

__all__ = ["memory_encrypt_op", "register_region", "unregister_region"]


def memory_encrypt_op(vm: Vm, arg: int) -> int:
    """Carry out a command; NULL asks whether there are any.

    Whatever comes of it, the command is written back.
    """
    if not vm.services.host.sev:
        raise oserror(errno.ENOTTY)
    if not arg:
        return 0
    sev, clock = vm.sev, vm.services.firmware.clock
    entered = clock.now()
    with sev.lock:
        command = sev.used.command(arg, entered)
        if sev.is_snp and command.id < abi.SNP_LAUNCH_START:
            raise oserror(errno.EPERM)
        carry_out = _COMMANDS.get(command.id) or _carrier(vm, command.id)
        try:
            told = carry_out(vm, command) or NOTHING
            sev.used.write(told, arg, command.packed())
        except OSError:
            vm.memory.write(arg, command.packed())
            raise
        if command.ends:
            clock.wait_until(command.ends)
    return 0


def register_region(vm: Vm, region: abi.Region) -> int:
    """KVM_MEMORY_ENCRYPT_REG_REGION: pin memory that may become private."""
    if not vm.services.host.sev:
        raise oserror(errno.ENOTTY)
    vm.sev.register(region)
    return 0


def unregister_region(vm: Vm, region: abi.Region) -> int:
    """KVM_MEMORY_ENCRYPT_UNREG_REGION: the same address and size as it was registered with."""
    if not vm.services.host.sev:
        raise oserror(errno.ENOTTY)
    vm.sev.unregister(region)
    return 0


def _carrier(vm: Vm, number: int) -> _Carrier:
    """Of a command that not every host has."""
    if number != abi.CSV_COMMAND_BATCH or not vm.services.host.csv:
        raise oserror(errno.EINVAL)
    return lambda vm, command: command_batch(vm.sev, command)


# -- becoming an SEV guest --------------------------------------------------------------------


def _init(vm: Vm, command: abi.Command) -> None:
    """KVM_SEV_INIT and KVM_SEV_ES_INIT: of VMs that were made before there were types."""
    if vm.sev.vm_type != host.VM_DEFAULT or vm.vcpus:
        raise oserror(errno.EINVAL)
    vm_type = host.VM_SEV if command.id == abi.INIT else host.VM_SEV_ES
    vm.sev.init(vm_type, abi.Init(0, 0, 0))


def _init2(vm: Vm, command: abi.Command) -> None:
    if vm.sev.active or vm.sev.vm_type not in (host.VM_SEV, host.VM_SEV_ES, host.VM_SNP):
        raise oserror(errno.EINVAL)
    wanted = abi.INIT2_DATA.read(vm.memory, command.data)
    if vm.vcpus:
        raise oserror(errno.EINVAL)
    vm.sev.init(vm.sev.vm_type, wanted)


# -- launch -----------------------------------------------------------------------------------


def _launch_start(vm: Vm, command: abi.Command) -> None:
    sev = vm.sev
    sev.need_active()
    params = abi.LAUNCH_START_DATA.read(vm.memory, command.data)
    for address, size in (
        (params.dh_uaddr, params.dh_len),
        (params.session_uaddr, params.session_len),
    ):
        if address:
            sev.blob(address, size)
    firmware = sev.firmware(command.sev_fd)
    with Telling(command):
        if params.dh_uaddr or params.session_uaddr:
            raise FirmwareError(abi.UNSUPPORTED)  # a guest owner's session: not in the fake
        sev.bind(firmware.launch_start(params.handle, params.policy), command.sev_fd)
    abi.LAUNCH_START_DATA.write(vm.memory, command.data, params._replace(handle=sev.handle))


def _launch_update_data(vm: Vm, command: abi.Command) -> None:
    vm.sev.need_active()
    params = abi.BLOB.read(vm.memory, command.data)
    vm.sev.pin(params.uaddr, params.len)
    with Telling(command):
        vm.sev.firmware().launch_update(vm.sev.handle, vm.memory, params.uaddr, params.len)


def _launch_update_vmsa(vm: Vm, command: abi.Command) -> None:
    if not vm.sev.is_es or not vm.sev.active:
        raise oserror(errno.ENOTTY)
    for _vcpu in vm.vcpus:
        with Telling(command):
            vm.sev.firmware().launch_update(vm.sev.handle, vm.memory, 0, 0)


def _launch_measure(vm: Vm, command: abi.Command) -> None:
    vm.sev.need_active()
    params = abi.BLOB.read(vm.memory, command.data)
    if params.len and params.uaddr and params.len > abi.BLOB_MAX_BYTES:
        raise oserror(errno.EINVAL)
    with Telling(command):
        try:
            size = params.len if params.uaddr else 0
            found = vm.sev.firmware().launch_measure(vm.sev.handle, size)
        except FirmwareError as refusal:
            if not params.len:
                told = params._replace(len=refusal.needed)
                abi.BLOB.write(vm.memory, command.data, told)
            raise
    vm.memory.write(params.uaddr, found.ljust(params.len, b"\0"))
    abi.BLOB.write(vm.memory, command.data, params._replace(len=len(found)))


def _launch_finish(vm: Vm, command: abi.Command) -> None:
    vm.sev.need_active()
    with Telling(command):
        vm.sev.firmware().launch_finish(vm.sev.handle)


def _guest_status(vm: Vm, command: abi.Command) -> None:
    vm.sev.need_active()
    with Telling(command):
        policy, state = vm.sev.firmware().guest_status(vm.sev.handle)
    vm.memory.write(command.data, abi.GUEST_STATUS_DATA.pack(vm.sev.handle, policy, state))


def _dbg_decrypt(vm: Vm, command: abi.Command) -> None:
    """Multiples of 16 only: the kernel's help with others is not in the fake."""
    sev = vm.sev
    sev.need_active()
    params = abi.DEBUG.read(vm.memory, command.data)
    if not params.len or params.src_uaddr + params.len > U64 or not params.dst_uaddr:
        raise oserror(errno.EINVAL)
    sev.pin(params.src_uaddr, params.len)
    sev.pin(params.dst_uaddr, params.len)
    with Telling(command):
        firmware = sev.firmware()
        plain = firmware.debug_decrypt(sev.handle, vm.memory, params.src_uaddr, params.len)
    vm.memory.write(params.dst_uaddr, plain)


# -- send -------------------------------------------------------------------------------------


def _send_start(vm: Vm, command: abi.Command) -> None:
    sev = vm.sev
    sev.need_active()
    params = abi.SEND_START_DATA.read(vm.memory, command.data)
    target = _target(sev, params) if params.session_len else Files(b"", b"", b"")
    with Telling(command):
        try:
            firmware = sev.firmware()
            policy, session = firmware.send_start(sev.handle, target, params.session_len)
        except FirmwareError as refusal:
            # Told even when it fails: that is how its length is asked for.
            told = params._replace(session_len=refusal.needed or params.session_len)
            if params.session_len:
                told = told._replace(policy=0)
            abi.SEND_START_DATA.write(vm.memory, command.data, told)
            raise
    vm.memory.write(params.session_uaddr, session.ljust(params.session_len, b"\0"))
    told = params._replace(policy=policy, session_len=len(session))
    abi.SEND_START_DATA.write(vm.memory, command.data, told)


def _target(sev: SevVm, params: abi.SendStart) -> Files:
    given = params.pdh_cert_uaddr and params.pdh_cert_len and params.session_uaddr
    if not given or params.session_len > abi.BLOB_MAX_BYTES:
        raise oserror(errno.EINVAL)
    return Files(
        sev.blob(params.pdh_cert_uaddr, params.pdh_cert_len),
        sev.blob(params.plat_certs_uaddr, params.plat_certs_len),
        sev.blob(params.amd_certs_uaddr, params.amd_certs_len),
    )


def _send_update_data(vm: Vm, command: abi.Command) -> Pieces | None:
    sev = vm.sev
    sev.need_active()
    packet = sev.used.packet(command.data)
    hdr_at, hdr_len, address, size, trans_at, trans_len = packet
    if not trans_len or not hdr_len:
        _query_packet(vm, command, packet)
        return None
    if not packet.is_whole:
        raise oserror(errno.EINVAL)
    found = sev.used.ahead((command.data, 0, 0, 0, 0, address, size))
    content = sev.page(address, size) if found is None else found[:size]
    if packet.is_too_large:
        raise oserror(errno.ENOMEM)
    try:
        hdr, trans = sev.firmware().send_update(sev.handle, content, packet, command)
    except FirmwareError as refusal:
        raise refused(command, refusal) from refusal
    command.error = abi.SUCCESS
    return trans_at, trans, hdr_at, hdr.ljust(hdr_len, b"\0")


def _query_packet(vm: Vm, command: abi.Command, packet: abi.Packet) -> None:
    """The header's length is told; that of the contents is for the caller to choose."""
    empty = abi.Packet(0, 0, 0, 0, 0, 0)
    needed = 0
    with Telling(command):
        try:
            vm.sev.firmware().send_update(vm.sev.handle, b"", empty, command)
        except FirmwareError as refusal:
            needed = refusal.needed
            raise
        finally:
            told = packet._replace(hdr_len=needed, trans_len=0)
            abi.PACKET.write(vm.memory, command.data, told)


def _send_finish(vm: Vm, command: abi.Command) -> None:
    vm.sev.need_active()
    with Telling(command):
        vm.sev.firmware().send_finish(vm.sev.handle)


def _send_cancel(vm: Vm, command: abi.Command) -> None:
    vm.sev.need_active()
    with Telling(command):
        vm.sev.firmware().send_cancel(vm.sev.handle)


# -- receive ----------------------------------------------------------------------------------


def _receive_start(vm: Vm, command: abi.Command) -> None:
    sev = vm.sev
    sev.need_active()
    params = abi.RECEIVE_START_DATA.read(vm.memory, command.data)
    pdh = sev.blob(params.pdh_uaddr, params.pdh_len)
    session = sev.blob(params.session_uaddr, params.session_len)
    firmware = sev.firmware(command.sev_fd)
    with Telling(command):
        made = firmware.receive_start(params.handle, params.policy, pdh, session)
        sev.bind(made, command.sev_fd)
    abi.RECEIVE_START_DATA.write(vm.memory, command.data, params._replace(handle=sev.handle))


def _receive_update_data(vm: Vm, command: abi.Command) -> Pieces:
    sev = vm.sev
    sev.need_active(errno.EINVAL)
    packet = sev.used.packet(command.data)
    if not packet.is_whole:
        raise oserror(errno.EINVAL)
    sealed = _sealed(sev, command, packet)
    try:
        content = sev.firmware().receive_update(sev.handle, packet, sealed, command)
    except FirmwareError as refusal:
        raise refused(command, refusal) from refusal
    command.error = abi.SUCCESS
    return packet.guest_uaddr, content, 0, b""


def _sealed(sev: SevVm, command: abi.Command, packet: abi.Packet) -> Sealed:
    """Header and contents; a byte of where they are to lie shows that it is there."""
    hdr_at, hdr_len, address, _size, trans_at, trans_len = packet
    if hdr_len <= abi.BLOB_MAX_BYTES and trans_len <= abi.BLOB_MAX_BYTES:
        found = sev.used.ahead((command.data, hdr_at, hdr_len, trans_at, trans_len, address, 1))
        if found is not None:
            return found[:hdr_len], found[hdr_len : hdr_len + trans_len]
    sealed = sev.blob(hdr_at, hdr_len), sev.blob(trans_at, trans_len)
    sev.page(address, 1)
    return sealed


def _receive_finish(vm: Vm, command: abi.Command) -> None:
    vm.sev.need_active()
    with Telling(command):
        vm.sev.firmware().receive_finish(vm.sev.handle)


_COMMANDS: Mapping[int, _Carrier] = {
    abi.INIT: _init,
    abi.ES_INIT: _init,
    abi.INIT2: _init2,
    abi.LAUNCH_START: _launch_start,
    abi.LAUNCH_UPDATE_DATA: _launch_update_data,
    abi.LAUNCH_UPDATE_VMSA: _launch_update_vmsa,
    abi.LAUNCH_MEASURE: _launch_measure,
    abi.LAUNCH_FINISH: _launch_finish,
    abi.GUEST_STATUS: _guest_status,
    abi.DBG_DECRYPT: _dbg_decrypt,
    abi.SEND_START: _send_start,
    abi.SEND_UPDATE_DATA: _send_update_data,
    abi.SEND_FINISH: _send_finish,
    abi.SEND_CANCEL: _send_cancel,
    abi.RECEIVE_START: _receive_start,
    abi.RECEIVE_UPDATE_DATA: _receive_update_data,
    abi.RECEIVE_FINISH: _receive_finish,
}
