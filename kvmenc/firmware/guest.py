"""A VM that is an SEV guest: made, launched, asked for its state."""

from __future__ import annotations

import ctypes
import errno
from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple, Self

from kvmenc import uapi
from kvmenc.call import call
from kvmenc.errors import HostError, IoctlError
from kvmenc.firmware.refusal import FirmwareRefused

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np
    from numpy.typing import NDArray

    from kvmenc.firmware.platform import SevPlatform
    from kvmenc.kvm import KvmSystem, Vm

__all__ = ["GuestState", "SevGuest", "Status"]

# Linux v6.12, include/linux/psp-sev.h, SEV_FW_BLOB_MAX_SIZE
_MAX_BLOB_BYTES = 0x4000


class GuestState(IntEnum):
    """What the firmware says of a guest. Source: AMD's publication 55766, GSTATE."""

    UNINIT = 0
    LAUNCH_UPDATE = 1
    LAUNCH_SECRET = 2
    RUNNING = 3
    SEND_UPDATE = 4
    RECEIVE_UPDATE = 5
    SENT = 6


class Status(NamedTuple):
    """KVM_SEV_GUEST_STATUS. ``state`` is a ``GuestState``, or a number that has no name."""

    handle: int
    policy: int
    state: int


class SevGuest:
    """A VM that is an SEV guest, without vCPUs or memslots: commands need neither.

    A context manager, which closes the VM; with it the firmware forgets the guest.

    Attributes:
        vm: the VM.
    """

    def __init__(self, vm: Vm, platform: SevPlatform) -> None:
        self.vm = vm
        self._platform = platform
        self._command = uapi.kvm_sev_cmd()

    @classmethod
    def create(cls, system: KvmSystem, platform: SevPlatform) -> Self:
        """A new VM, made an SEV guest by the commands that this kernel has.

        Raises:
            NotSupported: KVM has no SEV here.
            IoctlError: no VM type, or no ASID left for it.
        """
        typed = system.check_extension(uapi.KVM_CAP_VM_TYPES) >> uapi.KVM_X86_SEV_VM & 1
        self = cls(system.create_vm(uapi.KVM_X86_SEV_VM if typed else 0), platform)
        try:
            if typed:
                self.issue(uapi.KVM_SEV_INIT2, uapi.kvm_sev_init())
            else:
                self.issue(uapi.KVM_SEV_INIT)
        except BaseException:
            self.vm.close()
            raise
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.vm.close()

    def issue(self, number: int, data: ctypes.Structure | None = None) -> None:
        """One command of KVM_MEMORY_ENCRYPT_OP; ``data`` is its struct, written back by KVM.

        Raises:
            FirmwareRefused: the firmware's answer.
            IoctlError: the kernel's.
            NotSupported: ENOTTY.
        """
        # data: alive in this call
        self._issue(number, (0 if data is None else ctypes.addressof(data),))

    def issue_each(self, number: int, args: NDArray[np.void]) -> None:
        """The same command for each struct of an array, in their order.

        Raises:
            FirmwareRefused: the firmware's answer to one; those after it are not issued.
            IoctlError: the kernel's.
            NotSupported: ENOTTY.
        """
        first, step_bytes = args.ctypes.data, args.itemsize
        self._issue(number, range(first, first + args.size * step_bytes, step_bytes))

    def _issue(self, number: int, addresses: Iterable[int]) -> None:
        command, detail = self._command, uapi.sev_cmd_name(number)
        command.id, command.error, command.sev_fd = number, 0, self._platform.fd
        # The number says that the argument is an unsigned long; it is the address of one of these.
        request, argument = uapi.KVM_MEMORY_ENCRYPT_OP, ctypes.addressof(command)
        backend, fd = self.vm.backend, self.vm.fd
        try:
            for command.data in addresses:
                call(backend, fd, request, argument, detail)
        except IoctlError as error:
            if error.errno == errno.EIO and command.error:
                raise FirmwareRefused(number, command.error) from error
            raise

    def register(self, address: int, size: int) -> None:
        """Pin memory that is to be private: encrypted pages must not be moved.

        Raises:
            IoctlError: ENOMEM.
        """
        region = uapi.kvm_enc_region(addr=address, size=size)
        detail = f"addr={address:#x}, size={size}"
        self.vm.ioctl(uapi.KVM_MEMORY_ENCRYPT_REG_REGION, region, detail)

    def launch(self, address: int, size: int, policy: int = 0) -> None:
        """Start a guest of these bytes, encrypted where they lie; then it may run, and be sent.

        Raises:
            FirmwareRefused: see there.
            IoctlError: see there.
        """
        self.issue(uapi.KVM_SEV_LAUNCH_START, uapi.kvm_sev_launch_start(policy=policy))
        update = uapi.kvm_sev_launch_update_data(uaddr=address, len=size)
        self.issue(uapi.KVM_SEV_LAUNCH_UPDATE_DATA, update)
        self._measure()
        self.issue(uapi.KVM_SEV_LAUNCH_FINISH)

    def _measure(self) -> None:
        """The measurement is for a guest's owner; a scratch guest has none."""
        asked = uapi.kvm_sev_launch_measure()
        self.length_of(uapi.KVM_SEV_LAUNCH_MEASURE, asked)
        blob = ctypes.create_string_buffer(asked.len)
        asked.uaddr = ctypes.addressof(blob)
        self.issue(uapi.KVM_SEV_LAUNCH_MEASURE, asked)

    def length_of(self, number: int, data: ctypes.Structure) -> None:
        """Ask the firmware how long something is: it answers by refusing, and fills in ``data``.

        Raises:
            FirmwareRefused: it refuses for another reason.
            HostError: a length that the kernel would refuse.
        """
        try:
            self.issue(number, data)
        except FirmwareRefused as refusal:
            if refusal.code != uapi.SEV_RET_INVALID_LEN:
                raise
        for name, *_ in data._fields_:
            if name.endswith("len") and (length := getattr(data, name)) > _MAX_BLOB_BYTES:
                msg = f"{uapi.sev_cmd_name(number)} says that {name} is {length}: of a made-up host"
                raise HostError(msg)

    def status(self) -> Status:
        """What the firmware says of the guest."""
        status = uapi.kvm_sev_guest_status()
        self.issue(uapi.KVM_SEV_GUEST_STATUS, status)
        return Status(status.handle, status.policy, status.state)

    def decrypted(self, address: int, size: int) -> bytes:
        """Private memory in the clear, of a guest whose policy allows debugging.

        Args:
            address: a multiple of 16.
            size: bytes, likewise.

        Raises:
            FirmwareRefused: POLICY_FAILURE.
        """
        plain = ctypes.create_string_buffer(size + 15)
        dst = -(-ctypes.addressof(plain) // 16) * 16
        debug = uapi.kvm_sev_dbg(src_uaddr=address, dst_uaddr=dst, len=size)
        self.issue(uapi.KVM_SEV_DBG_DECRYPT, debug)
        return ctypes.string_at(dst, size)
